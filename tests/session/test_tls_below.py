"""Flows whose server's side is a TLS stream from the start, as behind an https proxy."""

from __future__ import annotations

import ssl
from functools import partial

import pytest
import trio
import trustme

from mitml4.events import FlowError
from mitml4.layers.editing.elsewhere import connect_tls
from mitml4.net.listener import IncomingConnection
from mitml4.net.stream import Stream
from tests.streams import tcp_stream


def server_context(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(context)
    return context


async def receive_all(stream: trio.abc.Stream) -> bytes:
    data = b""
    while got := await stream.receive_some():
        data += got
    return data


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
async def test_ends_pass_in_both_directions(lab, server_ca: trustme.CA, is_tls: bool) -> None:
    """The client ends first where it can, and still gets the answer."""
    below, inside = (server_context(server_ca, name) for name in ("proxy.test", "www.test"))

    async def handler(transport: trio.SocketStream) -> None:
        stream: trio.abc.Stream = trio.SSLStream(transport, below, server_side=True)
        if is_tls:
            stream = trio.SSLStream(stream, inside, server_side=True)
        assert await stream.receive_some() == b"the rest"
        assert is_tls or await stream.receive_some() == b""
        await stream.send_all(b"answer")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handler, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        port = listener.socket.getsockname()[1]

        async def connect(_arrival: IncomingConnection, _name: str | None) -> Stream:
            stream = tcp_stream((await trio.open_tcp_stream("127.0.0.1", port)).socket)
            return await connect_tls(proxy.services.tls, stream, "proxy.test", ())

        async with lab(None, connect=connect) as proxy:
            client: trio.abc.Stream = await proxy.connect()
            if is_tls:
                client = trio.SSLStream(client, proxy.client_context(), server_hostname="www.test")
            with trio.fail_after(10):
                await client.send_all(b"the rest")
                if isinstance(client, trio.SocketStream):  # trio's TLS has no end of one direction
                    await client.send_eof()
                assert await receive_all(client) == b"answer"
                await client.aclose()
                assert (await proxy.wait_closed()).reason == "closed"
            assert proxy.of(FlowError) == []
            assert ("tls" in proxy.stack) == is_tls
        nursery.cancel_scope.cancel()
