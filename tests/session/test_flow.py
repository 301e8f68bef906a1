from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress

import pytest
import trio
import trustme

from mitml4.events import FlowClose, FlowError, FlowLayer, FlowOpen
from mitml4.protocols.policy import Decide
from mitml4.session.destinations.policy import HostPattern, Policy


def block(*patterns: str) -> Decide:
    """The policy of `--block` with these."""
    return Policy(block=tuple(map(HostPattern.parse, patterns))).decide


async def echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
    await stream.send_eof()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_unknown_bytes_are_relayed_both_ways_and_half_close_comes_through(lab) -> None:
    async with lab(echo) as proxy:
        client = await proxy.connect()
        await client.send_all(b"\x00\x01unknown")
        await client.send_eof()
        with trio.fail_after(5):
            assert await read_to_end(client) == b"\x00\x01unknown"
        await client.aclose()
        close = await proxy.wait_closed()
    assert (close.stack, close.reason) == (("unknown",), "closed")
    assert (close.bytes_up, close.bytes_down) == (9, 9)


async def test_a_server_that_speaks_first_is_relayed_before_the_client_says_a_word(lab) -> None:
    async def server(stream: trio.SocketStream) -> None:
        await stream.send_all(b"\xff\x00hello from the server")
        await echo(stream)

    async with lab(server) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            assert await client.receive_some() == b"\xff\x00hello from the server"
        await client.send_eof()
        await read_to_end(client)
        await proxy.wait_closed()


async def test_a_refusal_of_the_server_is_the_clients(lab) -> None:
    async with lab(None) as proxy:
        client = await proxy.connect()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            await client.receive_some()
        close = await proxy.wait_closed()
    assert (close.reason, close.stack) == ("refused", ())
    assert [error.kind for error in proxy.of(FlowError)] == ["refused"]


async def test_a_reset_of_the_server_resets_the_client(lab) -> None:
    heard = trio.Event()

    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"\x00the rest")
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await heard.wait()
        stream.socket.close()

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(b"\x00go")
        assert await client.receive_some() == b"\x00the rest"
        heard.set()
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            await client.receive_some()
        assert (await proxy.wait_closed()).reason == "reset"


def _has_end(sock) -> bool:
    """Whether the FIN has come: tcp(7), CLOSE_WAIT of net/tcp_states.h."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 8


@pytest.mark.parametrize(
    ("size", "server_ends", "reason"),
    [(100, True, "closed"), (100, False, "reset"), (32 << 20, True, "reset")],
)
async def test_a_client_that_resets_behind_the_servers_end_has_closed(
    lab, size: int, server_ends: bool, reason: str
) -> None:
    """As programs do that close without reading the end of TLS. Who has cut what was still on its
    way has not."""

    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        with suppress(trio.BrokenResourceError):  # the client does not read it all
            await stream.send_all(b"\x00" + bytes(size))
            if server_ends:
                await stream.send_eof()
            await stream.receive_some()

    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(b"\x00go")
        await client.receive_some(1)
        if reason == "closed":
            with trio.fail_after(5):
                while not _has_end(client.socket):  # noqa: ASYNC110 - no event tells
                    await trio.sleep(0.01)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
        assert (await proxy.wait_closed()).reason == reason
    assert not proxy.of(FlowError)


async def test_both_directions_at_once_do_not_wait_for_each_other(lab) -> None:
    size = 8 << 20

    async def server(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"\x00" + bytes(size))
            received = 0
            while received <= size:
                received += len(await stream.receive_some(1 << 20))
        await stream.send_eof()

    async with lab(server) as proxy:
        client = await proxy.connect()
        with trio.fail_after(20):
            await client.send_all(b"\x00" + bytes(size))  # reads only after it wrote
            assert len(await read_to_end(client)) == size + 1
        await client.aclose()
        close = await proxy.wait_closed()
    assert (close.bytes_up, close.bytes_down) == (size + 1, size + 1)


def tls_server(server_ca: trustme.CA, name: str = "example.test", **settings):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert(name).configure_cert(context)
    for key, value in settings.items():
        setattr(context, key, value)
    context.set_alpn_protocols(["h2", "http/1.1"])

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        try:
            async for chunk in tls:
                await tls.send_all(chunk)
            await tls.aclose()
        except trio.BrokenResourceError:
            await stream.aclose()

    return serve


async def test_tls_is_opened_and_only_the_issuer_differs(lab, server_ca: trustme.CA) -> None:
    async with lab(tls_server(server_ca)) as proxy:
        context = proxy.client_context()
        context.set_alpn_protocols(["http/1.1"])
        client = trio.SSLStream(await proxy.connect(), context, server_hostname="example.test")
        with trio.fail_after(5):
            await client.send_all(b"\x00inside")
            assert await client.receive_some() == b"\x00inside"
            assert client.selected_alpn_protocol() == "http/1.1"
            await client.aclose()
        close = await proxy.wait_closed()
    assert (close.stack, close.reason) == (("tls", "unknown"), "closed")
    layer = proxy.of(FlowLayer)[0]
    assert layer.action == "intercepted"
    assert layer.details.sni == "example.test"
    assert layer.details.alpn == b"http/1.1"
    assert layer.details.version == "TLSv1.3"
    assert layer.details.certificate.verify == "ok"
    assert {"subject", "key"} <= set(layer.details.mirrored)


@pytest.mark.parametrize("step", [1, 2, 7])
async def test_a_client_hello_in_small_pieces_is_opened_too(
    lab, server_ca: trustme.CA, step: int
) -> None:
    async with lab(tls_server(server_ca)) as proxy:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = proxy.client_context().wrap_bio(incoming, outgoing, server_hostname="example.test")
        client = await proxy.connect()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with trio.fail_after(10):
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    hello = outgoing.read()
                    for at in range(0, len(hello), step):
                        await client.send_all(hello[at : at + step])
                        await trio.lowlevel.checkpoint()
                    incoming.write(await client.receive_some())
        await client.aclose()
        close = await proxy.wait_closed()
    assert close.stack[0] == "tls"
    assert proxy.of(FlowLayer)[0].action == "intercepted"


async def test_every_flow_opens_first_and_closes_last_once(lab) -> None:
    async with lab(echo) as proxy:
        client = await proxy.connect()
        await client.aclose()
        close = await proxy.wait_closed()
    assert isinstance(proxy.events[0], FlowOpen)
    assert isinstance(proxy.events[-1], FlowClose)
    assert close.stack == ()


@pytest.mark.parametrize(
    ("greeting", "request_"),
    [
        (b"\x05\x01\x00", b"\x05\x01\x00\x03\x0cblocked.test\x00\x50"),
        (b"", b"\x04\x01\x00\x50\0\0\0\x01me\0blocked.test\0"),
        (b"", b"CONNECT blocked.test:80 HTTP/1.1\r\nHost: blocked.test:80\r\n\r\n"),
        (b"", b"CONNECT other.test:80 HTTP/1.1\r\n\r\nCONNECT blocked.test:80 HTTP/1.1\r\n\r\n"),
    ],
    ids=["socks5", "socks4", "http-connect", "inside another"],
)
async def test_a_proxy_never_hears_of_a_target_that_is_blocked(lab, greeting, request_) -> None:
    heard = bytearray()

    async def proxy_server(stream: trio.SocketStream) -> None:
        async for data in stream:
            heard.extend(data)
            if heard == greeting:
                await stream.send_all(b"\x05\x00")
            if heard.endswith(b"\r\n\r\n"):
                await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")

    async with lab(proxy_server, policy=block("blocked.test")) as proxy:
        client = await proxy.connect()
        with trio.fail_after(5):
            if greeting:
                await client.send_all(greeting)
                assert await client.receive_some() == b"\x05\x00"
            await client.send_all(request_)
            with pytest.raises(trio.BrokenResourceError):
                await read_to_end(client)
        assert (await proxy.wait_closed()).reason == "blocked"
    assert b"blocked.test" not in heard
