"""TLS whose ClientHello comes from the side that accepted the connection."""

from __future__ import annotations

import ssl

import pytest
import trio
import trustme

from mitml4.events import FlowLayer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("said", "stack"),
    [(b"", ("tls",)), (b"hello there\r\n", ("tls",)), (b"RETR 7\n", ("tls",))],
)
async def test_reversed_roles_are_named_with_all_that_the_hellos_say(
    version: ssl.TLSVersion, said: bytes, stack: tuple[str, ...], lab, server_ca: trustme.CA
) -> None:
    asking = ssl.create_default_context()
    asking.maximum_version = version
    server_ca.configure_trust(asking)
    answering = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(answering)

    async def acceptor(stream: trio.SocketStream) -> None:
        while said and not (await stream.receive_some()).endswith(b"\n"):
            pass
        tls = trio.SSLStream(stream, asking, server_hostname="example.test")
        await tls.send_all(b"ping")
        assert await tls.receive_some() == b"pong"
        await tls.aclose()

    async with lab(acceptor) as proxy:
        client = await proxy.connect()
        if said:
            await client.send_all(said)
        tls = trio.SSLStream(client, answering, server_side=True)
        assert await tls.receive_some() == b"ping"
        await tls.send_all(b"pong")
        assert await tls.receive_some() == b""
        await tls.aclose()
        assert (await proxy.wait_closed()).stack == stack
    (layer,) = proxy.of(FlowLayer)
    assert (layer.speaker, layer.action) == ("server" if not said else "client", "passthrough")
    details = layer.details
    assert details.sni == "example.test"
    assert details.version == ("TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3")
    assert details.ja3
    assert details.ja4
    assert details.ja4s
