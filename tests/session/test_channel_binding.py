"""Servers inside TLS that offer logins bound to it: the next connection is passed through."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import trio

from mitml4.events import FlowLayer

PLUS = b"SCRAM-SHA-256-PLUS"
STREAM = b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
ROOT_SEARCH = b"\x30\x1b\2\1\1\x63\x16\4\0\x0a\1\0\x0a\1\0\2\1\0\2\1\0\1\1\0\x87\1x\x30\0"


def element(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([tag, len(body)]) + body


MECHANISMS = element(0x30, element(4, b"supportedSASLMechanisms"), element(0x31, element(4, PLUS)))
ROOT = element(0x30, b"\2\1\1", element(0x64, b"\4\0", element(0x30, MECHANISMS)))
BOUND = element(0x30, b"\2\1\2", element(0x61, b"\x0a\1\0\4\0\4\0"))
BIND = element(0x30, b"\2\1\2", element(0x60, b"\2\1\3", element(4, b"cn=me"), b"\x80\1x"))

TALKS = {
    "imap": [
        (None, b"* OK [CAPABILITY IMAP4rev1 AUTH=" + PLUS + b"] ready\r\n"),
        (b"a LOGIN me secret\r\n", b"a OK hello\r\n"),
    ],
    "smtp": [
        (None, b"220 mx ESMTP\r\n"),
        (b"EHLO me\r\n", b"250-mx\r\n250 AUTH " + PLUS + b"\r\n"),
        (b"AUTH PLAIN AGEAYg==\r\n", b"235 hello\r\n"),
    ],
    "pop3": [
        (None, b"+OK POP3 ready\r\n"),
        (b"CAPA\r\n", b"+OK\r\nSASL " + PLUS + b"\r\n.\r\n"),
        (b"APOP me digest\r\n", b"+OK hello\r\n"),
    ],
    "xmpp": [
        (
            STREAM,
            STREAM + b"<stream:features><mechanisms><mechanism>" + PLUS + b"</mechanism>"
            b"</mechanisms></stream:features>",
        ),
        (b"<auth mechanism='PLAIN'>AGEAYg==</auth>", b"<success/>"),
    ],
    "ldap": [(ROOT_SEARCH, ROOT), (BIND, BOUND)],
}
"""By protocol: what the client says, if anything, and what it hears; the last is a login."""


class Server:
    """Gives its answers in their order, whatever it is asked."""

    def __init__(self, ca, talk) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("example.test").configure_cert(self.context)
        self.talk = talk

    async def serve(self, stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, self.context, server_side=True)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            for question, answer in self.talk:
                if question and not await tls.receive_some():
                    return
                await tls.send_all(answer)
            await tls.receive_some()


@pytest.mark.parametrize("name", TALKS)
async def test_an_offer_passes_the_next_connection_unless_the_client_is_let_in(
    lab, server_ca, name
) -> None:
    server = Server(server_ca, TALKS[name])
    async with lab(server.serve) as proxy:
        context = proxy.client_context()
        server_ca.configure_trust(context)

        async def visit(number: int, talk) -> str | None:
            client = trio.SSLStream(await proxy.connect(), context, server_hostname="example.test")
            with trio.fail_after(10):
                for question, answer in talk:
                    if question:
                        await client.send_all(question)
                    heard = b""
                    while heard != answer:
                        heard += await client.receive_some()
                await client.aclose()
            await proxy.wait_closed(number)
            first, *rest = [each for each in proxy.of(FlowLayer) if each.flow == number]
            assert [each.protocol for each in rest] in ([name], [])
            return first.details.passthrough

        *offer, login = TALKS[name]
        assert await visit(1, [*offer, login]) is None
        assert await visit(2, offer) is None  # nothing was learned of one who was let in
        assert await visit(3, offer) == "channel binding"
