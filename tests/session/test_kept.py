"""What is read before it is consumed, since there are too many packets to look at, is carried as
what stays in the kernel is."""

from __future__ import annotations

import ssl

import pytest
import trio

from mitml4.events import FlowLayer
from mitml4.protocols.http.events import HttpRequest

REQUEST = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nX: "


@pytest.fixture(autouse=True)
def any_packets_are_too_many(monkeypatch) -> None:
    monkeypatch.setattr("mitml4.net.tcp._FEW_BYTES", -1)
    monkeypatch.setattr("mitml4.net.tcp._FEW_PACKETS_MEMORY", -1)


async def test_tls_is_opened_all_the_same(lab, server_ca) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    body = b"x" * 300_000

    async def server(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        assert await tls.receive_some() == REQUEST
        await tls.send_all(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        await tls.aclose()

    async with lab(server) as proxy:
        client = trio.SSLStream(
            await proxy.connect(),
            proxy.client_context(),
            server_hostname="example.test",
            https_compatible=True,
        )
        with trio.fail_after(5):
            await client.send_all(REQUEST)
            answer = b"".join([chunk async for chunk in client])
        await client.aclose()
        close = await proxy.wait_closed()
    assert answer.endswith(b"\r\n\r\n" + body)
    assert close.stack == ("tls", "http/1")
    assert [layer.action for layer in proxy.of(FlowLayer)] == ["intercepted", "relayed"]
    assert [request.url for request in proxy.of(HttpRequest)] == ["https://a/x"]


async def test_a_piece_goes_before_the_end_of_its_side(lab) -> None:
    heard = b""

    async def server(stream: trio.SocketStream) -> None:
        nonlocal heard
        async for chunk in stream:
            heard += chunk
        await stream.send_eof()

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(REQUEST + HALF)
        await client.send_eof()
        with trio.fail_after(5):
            assert await client.receive_some() == b""
        await client.aclose()
        assert (await proxy.wait_closed()).reason == "closed"
    assert heard == REQUEST + HALF
