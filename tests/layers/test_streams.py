"""Every stream that layers run on keeps the promises of `Stream`, whatever it is made of."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from mitml4.net.memory import memory_pair
from mitml4.net.stream import Stream, StreamTruncated
from mitml4.net.tcp import TcpStream
from mitml4.protocols.tls.hello import ClientHello
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts, Outcome
from mitml4.tls.forge import Forge, Leaf
from mitml4.tls.keys import KeyType
from mitml4.tls.opened_stream import OpenedStream
from mitml4.tls.stream import tls_over
from tests.streams import tcp_stream
from tests.tls.bridge.ends import between, bridged

Pair = Callable[[Leaf], AbstractAsyncContextManager[tuple[Stream, Stream]]]

HELLO = ClientHello(
    legacy_version=0x0303,
    random=bytes(32),
    cipher_suites=(0x1301, 0xC02B),
    supported_versions=(0x0304, 0x0303),
)
LONG = bytes(range(256)) * 4000


@asynccontextmanager
async def in_memory(_leaf: Leaf) -> AsyncIterator[tuple[Stream, Stream]]:
    yield memory_pair()


@asynccontextmanager
async def over_tcp(_leaf: Leaf) -> AsyncIterator[tuple[Stream, Stream]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = tcp_stream(socket.create_connection(listener.getsockname()))
        other = tcp_stream(listener.accept()[0])
    try:
        yield one, other
    finally:
        one.abort()
        other.abort()


def in_tls(carried_by: Pair) -> Pair:
    @asynccontextmanager
    async def pair(leaf: Leaf) -> AsyncIterator[tuple[Stream, Stream]]:
        outcome = Outcome(version=0x0304, cipher="", alpn=b"", extended_master_secret=True)
        contexts = Contexts()
        async with carried_by(leaf) as (below_client, below_server):
            client = tls_over(below_client, contexts.server_side(HELLO).context)
            server = tls_over(below_server, contexts.client_side(leaf, outcome), server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.handshake)
                nursery.start_soon(server.handshake)
            yield client, server

    return pair


def in_bridge(carried_by: Pair) -> Pair:
    @asynccontextmanager
    async def pair(leaf: Leaf) -> AsyncIterator[tuple[Stream, Stream]]:
        async with carried_by(leaf) as (below_client, below_server):
            yield bridged(below_client, below_server)

    return pair


def to_openssl(version: int, *, is_client: bool) -> Pair:
    """One end is OpenSSL's, the other is the bridge's between it and another of OpenSSL's."""

    @asynccontextmanager
    async def pair(leaf: Leaf) -> AsyncIterator[tuple[Stream, Stream]]:
        outcome = Outcome(version=version, cipher="", alpn=b"", extended_master_secret=True)
        contexts = Contexts()
        bridge: list[Stream] = []

        async def shake_hands(client_side: Stream, server_side: Stream) -> None:
            bridge.extend(await between(client_side, server_side))

        async with (
            over_tcp(leaf) as (far_client, near_client),
            over_tcp(leaf) as (near_server, far_server),
        ):
            client = tls_over(far_client, contexts.server_side(HELLO).context)
            context = contexts.client_side(leaf, outcome)
            server = tls_over(far_server, context, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.handshake)
                nursery.start_soon(server.handshake)
                nursery.start_soon(shake_hands, near_client, near_server)
            yield (bridge[1], server) if is_client else (client, bridge[0])

    return pair


PAIRS = {
    "memory": in_memory,
    "tcp": over_tcp,
    "tls on a socket": in_tls(over_tcp),
    "tls in memory": in_tls(in_memory),
    "tls in tls": in_tls(in_tls(in_memory)),
    "bridge on a socket": in_bridge(over_tcp),
    "bridge in memory": in_bridge(in_memory),
    "bridge in bridge": in_bridge(in_bridge(over_tcp)),
    "bridge in tls": in_bridge(in_tls(in_memory)),
    "tls in bridge": in_tls(in_bridge(in_memory)),
    "bridge to a server": to_openssl(0x0304, is_client=True),
    "bridge to a client": to_openssl(0x0304, is_client=False),
    "bridge to a server of TLS 1.2": to_openssl(0x0303, is_client=True),
    "bridge to a client of TLS 1.2": to_openssl(0x0303, is_client=False),
}


@pytest.fixture(scope="module")
def leaf() -> Leaf:
    forge = Forge(CertificateAuthority.generate())
    make = partial(
        forge.leaf, None, issuer=frozenset((0,)), key_type=KeyType.EC_P256, name="a.test"
    )
    return trio.run(make)


@pytest.fixture(params=list(PAIRS.values()), ids=list(PAIRS))
async def ends(request, leaf: Leaf) -> AsyncIterator[tuple[Stream, Stream]]:
    with trio.fail_after(20):
        async with request.param(leaf) as pair:
            yield pair


async def receive(stream: Stream, count: int) -> bytes:
    """So many bytes, or all up to the end."""
    got = b""
    buffer = memoryview(bytearray(65536))
    while len(got) < count:
        size = stream.receive_nowait(buffer[: count - len(got)])
        if size == 0:
            break
        got += bytes(buffer[: size or 0])
        if size is None:
            await stream.wait_receivable()
    return got


async def test_what_is_looked_at_stays_until_it_is_consumed(ends) -> None:
    for one, other in (ends, ends[::-1]):
        assert other.peek_nowait(100) == b""
        assert other.receive_nowait(memoryview(bytearray(1))) is None
        await one.send_all(memoryview(b"abc"))
        assert await other.peek(0, 100) == b"abc"
        assert await other.peek(0, 2) == b"ab"
        await one.send_all(memoryview(b"def"))
        assert await other.peek(3, 100) == b"abcdef"
        assert other.peek_nowait(4) == b"abcd"
        other.discard(4)
        assert await receive(other, 2) == b"ef"
        assert other.peek_nowait(100) == b""
        other.transport.raise_if_reset()


async def available(stream: Stream, limit: int) -> bytes | None:
    """What can be seen once something has come that is to be seen."""
    while (seen := stream.peek_available(limit)) is None:
        await stream.wait_receivable()
    return seen


async def test_what_is_available_is_told_from_an_end(ends) -> None:
    one, other = ends
    assert other.peek_available(100) is None
    await one.send_all(memoryview(b"abc"))
    assert await available(other, 100) == b"abc"
    assert other.peek_available(2) == b"ab"
    await one.send_eof()
    assert await available(other, 100) == b"abc"
    other.discard(3)
    assert await available(other, 100) == b""
    other.transport.raise_if_reset()


async def test_a_wait_that_is_interrupted_loses_nothing(ends) -> None:
    one, other = ends
    if not other.can_interrupt:
        return
    is_waiting = True

    async def wait() -> None:
        nonlocal is_waiting
        with pytest.raises(trio.ClosedResourceError):
            await other.wait_receivable()
        is_waiting = False

    for sent in (b"", b"abc"):
        async with trio.open_nursery() as nursery:
            is_waiting = True
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.01)
            other.interrupt()
            await trio.testing.wait_all_tasks_blocked()
            assert not is_waiting
        other.interrupt()  # nobody waits
        await one.send_all(memoryview(sent))
    assert await receive(other, 3) == b"abc"


async def test_a_peek_that_is_cancelled_loses_nothing(ends) -> None:
    one, other = ends
    await one.send_all(memoryview(b"abc"))
    assert await other.peek(0, 100) == b"abc"
    for wait in (lambda: other.peek(3, 100), lambda: other.peek(90, 100)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert await receive(other, 3) == b"abc"


async def test_more_than_fits_is_sent_as_it_is_read(ends) -> None:
    async def send(stream: Stream) -> None:
        await stream.send_all(memoryview(LONG))
        await stream.send_eof()

    got = {}

    async def read(stream: Stream) -> None:
        got[stream] = await receive(stream, len(LONG) + 1)

    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(send, end)
            nursery.start_soon(read, end)
    assert [got[end] == LONG for end in ends] == [True, True]


async def test_an_end_comes_behind_what_was_sent_and_leaves_the_other_way_open(ends) -> None:
    one, other = ends
    await one.send_all(memoryview(b"last"))
    await one.send_eof()
    assert await other.peek(0, 100) == b"last"
    assert await other.peek(4, 100) == b"last"
    assert await receive(other, 100) == b"last"
    await other.wait_end()
    await other.send_all(memoryview(b"more"))
    assert await receive(one, 4) == b"more"
    await other.send_eof()
    assert await one.peek(0, 100) == b""
    other.transport.raise_if_reset()


async def test_a_reset_is_raised_behind_what_came_before_it(ends) -> None:
    one, other = ends
    await one.send_all(memoryview(b"last"))
    assert await other.peek(0, 100) == b"last"
    one.abort()
    with pytest.raises(ConnectionResetError):
        await other.transport.wait_reset()
    assert other.transport.is_gone
    assert other.peek_nowait(100) in (b"last", b"")
    with pytest.raises(OSError, match=r"."):
        await other.send_all(memoryview(LONG))


async def test_a_reset_ends_the_waits_at_the_other_end(ends) -> None:
    one, other = ends
    ended = []

    async def look() -> None:
        try:
            with suppress(StreamTruncated):  # where the other wait was told of the reset
                assert not await other.peek(0, 100)
            other.transport.raise_if_reset()
        except ConnectionResetError:
            ended.append("peek")

    async def watch() -> None:
        with pytest.raises(ConnectionResetError):
            await other.transport.wait_reset()
        ended.append("reset")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        one.abort()
    assert sorted(ended) == ["peek", "reset"]


async def test_a_reset_of_the_source_ends_a_wait_for_room(ends) -> None:
    """The far side of a sink reads nothing more, so no room will come."""
    sink, _ = ends
    source, far = memory_pair()

    async def send() -> None:
        with pytest.raises(ConnectionResetError):
            await sink.send_all(memoryview(LONG * 20), fed_by=source)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.05)
        far.abort()


async def test_streams_say_what_they_can(ends) -> None:
    for end in ends:
        is_socket = isinstance(end, TcpStream)
        assert (end.kernel_source is end) == (end.kernel_sink is end) == is_socket
        assert end.peek_urgent() == b""
        assert (end.below is None) == (not isinstance(end, OpenedStream))
        assert end.transport.below is None
