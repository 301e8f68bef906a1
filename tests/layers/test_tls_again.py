"""Where the bridge cannot finish behind STARTTLS, the flow comes to the same point again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from mitml4.events import FlowLayer
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.tls.context import Contexts, Outcome
from mitml4.tls.keys import KeyType
from mitml4.tls.offer import prepare
from mitml4.tls.stream import tls_over

from .conftest import HELLO, End

CBC = 0xC009
OLDER = replace(HELLO, cipher_suites=(0x1301, 0xC02B, CBC))
GREETING, HELP = b"220 a.test ESMTP\r\n", b"250-a.test\r\n250 STARTTLS\r\n"


async def ask_for_tls(end: End, *said: bytes) -> None:
    await end.expect(GREETING)
    for line in said:
        await end.send(line)
        await end.expect(HELP)
    await end.send(b"STARTTLS\r\n")
    await end.expect(b"220 go\r\n")


@pytest.mark.parametrize(
    ("said", "is_repeated"),
    [((b"EHLO b.test\r\n",), True), ((b"EHLO b.test\r\n", b"XCLIENT a=b\r\n"), False)],
)
def test_what_the_client_has_said_is_repeated(flow_lab, said, is_repeated: bool) -> None:
    leaf = trio.run(
        lambda: flow_lab.forge.leaf(
            None, issuer=frozenset({0}), key_type=KeyType.EC_P256, name="a.test"
        )
    )
    outcome = Outcome(
        version=0x0303, cipher="ECDHE-ECDSA-AES128-SHA", alpn=b"", extended_master_secret=True
    )
    server_context = Contexts().client_side(leaf, outcome)
    server_context.set_cipher_list(b"ECDHE-ECDSA-AES128-SHA")
    heard: list[bytes] = []

    async def client(end: End) -> None:
        await ask_for_tls(end, *said)
        stream = tls_over(end.stream, Contexts().server_side(OLDER).context)
        prepare(stream.connection, OLDER)
        await stream.handshake()
        end.stream = stream
        await end.expect(b"250 hello\r\n")
        await end.send_eof()
        await end.expect_eof()

    async def server(end: End) -> None:
        await end.send(GREETING)
        for line in said:
            heard.append(await end.receive(len(line)))
            await end.send(HELP[:9])
            await trio.sleep(1)
            await end.send(HELP[9:])
        heard.append(await end.receive(len(b"STARTTLS\r\n")))
        await end.send(b"220 go\r\n")
        end.stream = tls_over(end.stream, server_context, server_side=True)
        await end.stream.handshake()
        await end.send(b"250 hello\r\n")
        await end.expect_eof()
        await end.send_eof()

    out = flow_lab.run(client, server)
    out.check()
    assert out.met == {"client": "all", "server": "all"}
    assert len(out.far_ends) == 2 + is_repeated
    once = [*said, b"STARTTLS\r\n"]
    assert heard == once + once * is_repeated
    (tls,) = (each for each in out.events if isinstance(each, FlowLayer) and each.depth == 1)
    assert tls.action == "intercepted"
    assert isinstance(tls.details, TlsDetails)
    assert tls.details.cipher == "ECDHE-ECDSA-AES128-SHA"
