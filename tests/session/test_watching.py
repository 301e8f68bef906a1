"""Both sides are watched at all times: a reset is the other side's at once, whatever is awaited."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from mitml4.events import FlowError, FlowLayer

TCP_CLOSE, TCP_CLOSE_WAIT = 7, 8  # include/net/tcp_states.h
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CONNECT = b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n"


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def wait_for_state(stream: trio.SocketStream, state: int) -> None:
    with trio.fail_after(5):
        while stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != state:  # noqa: ASYNC110
            await trio.sleep(0.005)


async def wait_reset(stream: trio.SocketStream) -> None:
    """Without a word to it: a side that has not ended itself can only be reset into this state."""
    await wait_for_state(stream, TCP_CLOSE)


class Silent:
    """A server that takes one connection, and of itself does nothing with it."""

    def __init__(self) -> None:
        self._accepted = trio.Event()
        self._over = trio.Event()

    async def __call__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._accepted.set()
        await self._over.wait()

    async def stream(self) -> trio.SocketStream:
        with trio.fail_after(5):
            await self._accepted.wait()
        return self._stream

    async def hear(self, stream: trio.SocketStream, count: int) -> None:
        with trio.fail_after(5):
            while count:
                count -= len(await stream.receive_some(count))


@pytest.mark.parametrize(
    ("said", "stack"),
    [
        (b"", ()),
        (b"\0opaque", ("unknown",)),
        (REQUEST, ("http/1",)),
        (CONNECT, ("http-connect",)),
    ],
    ids=["nothing yet", "opaque", "http/1", "held"],
)
async def test_a_client_that_has_ended_and_is_reset_resets_a_silent_server(
    lab, said: bytes, stack: tuple[str, ...]
) -> None:
    server = Silent()
    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(said)
        await client.send_eof()
        far = await server.stream()
        await server.hear(far, len(said))
        assert await far.receive_some() == b""
        reset(client)
        await wait_reset(far)
        close = await proxy.wait_closed()
    assert (close.reason, close.stack) == ("reset", stack)


@pytest.mark.parametrize(
    ("said", "stack"),
    [(b"", ()), (b"\0opaque", ("unknown",)), (REQUEST, ("http/1",))],
    ids=["nothing yet", "opaque", "http/1"],
)
async def test_a_server_that_has_ended_and_is_reset_resets_a_silent_client(
    lab, said: bytes, stack: tuple[str, ...]
) -> None:
    server = Silent()
    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(said)
        far = await server.stream()
        await server.hear(far, len(said))
        await far.send_eof()
        assert await client.receive_some() == b""
        reset(far)
        await wait_reset(client)
        close = await proxy.wait_closed()
    assert (close.reason, close.stack) == ("reset", stack)


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("said", [b"\0opaque", REQUEST], ids=["opaque", "http/1"])
@pytest.mark.parametrize("both", [False, True], ids=["one way", "both ways"])
async def test_a_side_that_is_reset_resets_one_that_takes_nothing(
    lab, said: bytes, who: str, both: bool
) -> None:
    """Nobody reads from the one, and nobody can send to the other."""
    server = Silent()
    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(said)
        far = await server.stream()
        await server.hear(far, len(said))
        near, other = (client, far) if who == "client" else (far, client)
        async with trio.open_nursery() as nursery:
            for stream in (near, other) if both else (near,):
                nursery.start_soon(fill, stream)
        reset(near)
        await wait_reset(other)
        assert (await proxy.wait_closed()).reason == "reset"


@pytest.mark.parametrize("said", [b"\0opaque", REQUEST], ids=["opaque", "http/1"])
async def test_a_fin_comes_through_before_the_reset_behind_it(lab, said: bytes) -> None:
    server = Silent()
    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(said)
        far = await server.stream()
        await server.hear(far, len(said))
        await client.send_eof()
        reset(client)
        await wait_reset(far)
        with trio.fail_after(5):
            assert await far.receive_some() == b""


async def fill(stream: trio.SocketStream) -> None:
    """Send until nothing more is taken."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, b"HTTP/1.1 200 OK\r\n\r\n" + bytes(50_000_000))
        await wait_all_tasks_blocked(0.02)
        nursery.cancel_scope.cancel()


async def test_one_that_has_ended_is_not_taken_for_reset_when_the_other_ends(lab) -> None:
    """Both have said all, and one of them has yet to take it."""
    server = Silent()
    size = 20_000_000
    async with lab(server) as proxy:
        client = await proxy.connect()
        far = await server.stream()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ask() -> None:
                await client.send_all(b"\0" + bytes(size))
                await client.send_eof()

            await far.send_eof()
            with trio.fail_after(5):
                assert await client.receive_some() == b""
            await wait_all_tasks_blocked(0.05)
            await server.hear(far, 1 + size)
        assert await far.receive_some() == b""
        assert (await proxy.wait_closed()).reason == "closed"


def blocking_tls(
    address: tuple[str, int], context: ssl.SSLContext, said: bytes = b"\0opaque"
) -> tuple[socket.socket, ssl.SSLObject]:
    """A client's handshake, on memory, so that the test has the socket for itself."""
    sock = socket.create_connection(address, timeout=5)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="example.test")
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))
    tls.write(said)
    try:
        tls.unwrap()
    except ssl.SSLWantReadError:
        sock.sendall(outgoing.read())
    return sock, tls


@pytest.mark.parametrize("with_fin", [False, True], ids=["close_notify", "close_notify, FIN"])
async def test_inside_tls_as_well(lab, server_ca: trustme.CA, with_fin: bool) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    server = Silent()
    async with lab(server) as proxy:

        async def serve() -> None:
            far = await server.stream()
            tls = trio.SSLStream(far, context, server_side=True, https_compatible=True)
            assert await tls.receive_some() == b"\0opaque"
            assert await tls.receive_some() == b""

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            sock, _ = await trio.to_thread.run_sync(
                blocking_tls, proxy.address, proxy.client_context()
            )
        far = await server.stream()
        with sock:
            if with_fin:
                sock.shutdown(socket.SHUT_WR)
                await wait_for_state(far, TCP_CLOSE_WAIT)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await wait_reset(far)
        close = await proxy.wait_closed()
    assert (close.reason, close.stack) == ("reset", ("tls", "unknown"))


@pytest.mark.parametrize("said", [b"", CONNECT], ids=["nothing yet", "held"])
async def test_the_fin_behind_a_close_notify_comes_through_though_nobody_answers(
    lab, server_ca: trustme.CA, said: bytes
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    server = Silent()
    async with lab(server) as proxy:

        async def serve() -> None:
            far = await server.stream()
            tls = trio.SSLStream(far, context, server_side=True, https_compatible=True)
            with trio.fail_after(5):
                assert await tls.receive_some() == said
                if said:
                    assert await tls.receive_some() == b""

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            sock, _ = await trio.to_thread.run_sync(
                blocking_tls, proxy.address, proxy.client_context(), said
            )
        with sock:
            sock.shutdown(socket.SHUT_WR)
            await wait_for_state(await server.stream(), TCP_CLOSE_WAIT)


async def test_two_that_part_without_a_word_hear_of_each_other(lab, server_ca: trustme.CA) -> None:
    """Each has said close_notify and no more, and waits for the other's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    context.num_tickets = 0

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        assert await tls.receive_some() == b""
        await tls.unwrap()
        await trio.sleep_forever()

    async with lab(serve) as proxy:
        client = trio.SSLStream(
            await proxy.connect(), proxy.client_context(), server_hostname="example.test"
        )
        with trio.fail_after(5):
            await client.unwrap()


async def test_a_reset_that_a_close_notify_runs_into_is_a_reset(lab, server_ca: trustme.CA) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    context.num_tickets = 0
    server = Silent()
    async with lab(server) as proxy:

        async def serve() -> None:
            far = await server.stream()
            tls = trio.SSLStream(far, context, server_side=True)
            assert await tls.receive_some() == b"\0opaque"
            await far.send_eof()

        raw = await proxy.connect()
        client = trio.SSLStream(raw, proxy.client_context(), server_hostname="example.test")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await client.send_all(b"\0opaque")
            await wait_for_state(raw, TCP_CLOSE_WAIT)
        with pytest.raises(ssl.SSLWantReadError):
            client._ssl_object.unwrap()
        raw.socket._sock.send(client._outgoing.read())
        reset(await server.stream())
        await wait_reset(raw)
        assert (await proxy.wait_closed()).reason == "reset"


def client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="example.test")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def test_a_server_is_heard_while_a_client_hello_is_read(lab) -> None:
    server = Silent()
    async with lab(server) as proxy:
        hello = client_hello(proxy.client_context())
        client = await proxy.connect()
        await client.send_all(hello[:100])
        far = await server.stream()
        await far.send_all(b"\xff early")
        with trio.fail_after(5):
            assert await client.receive_some() == b"\xff early"
        await client.send_all(hello[100:])
        await server.hear(far, len(hello))
        for stream in (client, far):
            await stream.send_eof()
        await proxy.wait_closed()
    (layer,) = proxy.of(FlowLayer)
    assert (layer.protocol, layer.action) == ("tls", "passthrough")


async def test_a_servers_end_comes_through_while_a_client_hello_is_read(lab) -> None:
    server = Silent()
    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(client_hello(proxy.client_context())[:100])
        far = await server.stream()
        await far.send_eof()
        with trio.fail_after(5):
            assert await client.receive_some() == b""
        await client.send_eof()
        await proxy.wait_closed()


@pytest.mark.parametrize("share", [0.5, 1.0], ids=["half a hello", "a hello"])
async def test_a_reset_is_noticed_before_any_handshake(lab, share: float) -> None:
    for who in ("client", "server"):
        server = Silent()
        async with lab(server) as proxy:
            hello = client_hello(proxy.client_context())
            client = await proxy.connect()
            await client.send_all(hello[: int(len(hello) * share)])
            far = await server.stream()
            if share == 1.0:
                await server.hear(far, 100)
            ends = [client, far] if who == "client" else [far, client]
            reset(ends[0])
            await wait_reset(ends[1])
            assert (await proxy.wait_closed()).reason == "reset"


def tls_echo(authority: trustme.CA, version: ssl.TLSVersion):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.maximum_version = version
    authority.issue_cert("example.test").configure_cert(context)

    async def serve(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True)
        with suppress(trio.BrokenResourceError):
            async for chunk in tls:
                await tls.send_all(chunk)
        await trio.aclose_forcefully(stream)

    return serve


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_ends_before_the_servers_answer_hears_it_and_is_not_pinned(
    lab, server_ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    serve = tls_echo(server_ca, version)
    is_first = iter([True])

    async def slow(stream: trio.SocketStream) -> None:
        if next(is_first, False):
            await wait_for_state(stream, TCP_CLOSE_WAIT)
        await serve(stream)

    async with lab(slow) as proxy:
        hurried = await proxy.connect()
        await hurried.send_all(client_hello(proxy.client_context()))
        await hurried.send_eof()
        heard = b""
        with trio.fail_after(5), suppress(trio.BrokenResourceError):
            async for chunk in hurried:
                heard += chunk
        assert heard.startswith(b"\x16\3\3")
        await proxy.wait_closed()
        client = trio.SSLStream(
            await proxy.connect(), proxy.client_context(), server_hostname="example.test"
        )
        with trio.fail_after(5):
            await client.send_all(b"\0opaque")
            assert await client.receive_some() == b"\0opaque"
        await client.aclose()
        await proxy.wait_closed(2)
    assert [(error.side, error.kind) for error in proxy.of(FlowError)] == [("client", "reset")]
    actions = [layer.action for layer in proxy.of(FlowLayer) if layer.protocol == "tls"]
    assert actions == ["intercepted"] * 2


async def test_a_server_that_is_reset_resets_a_client_that_dawdles_over_its_handshake(
    lab, server_ca: trustme.CA
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_ca.issue_cert("example.test").configure_cert(context)
    context.num_tickets = 0
    server = Silent()
    async with lab(server) as proxy:
        client = await proxy.connect()
        await client.send_all(client_hello(proxy.client_context()))
        far = await server.stream()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.SSLStream(far, context, server_side=True).do_handshake)
            with trio.fail_after(5):
                assert await client.receive_some() != b""
            nursery.cancel_scope.cancel()
        reset(far)
        await wait_reset(client)
        assert (await proxy.wait_closed()).reason == "reset"


async def test_what_was_heard_is_told_though_a_reset_comes_before_it_is_certain(lab) -> None:
    server = Silent()
    async with lab(server) as proxy:
        client = await proxy.connect()
        far = await server.stream()
        await far.send_all(b"\0hello")  # the client might still say what this answers
        await far.send_eof()
        await server.hear(client, len(b"\0hello"))
        reset(far)
        await wait_reset(client)
        close = await proxy.wait_closed()
    assert (close.reason, close.stack) == ("reset", ("unknown",))
    (layer,) = proxy.of(FlowLayer)
    assert (layer.protocol, layer.speaker, layer.action) == ("unknown", "server", "relayed")
