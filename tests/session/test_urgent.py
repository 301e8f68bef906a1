"""TCP's urgent data is seen by the far end where it was sent, whatever carries it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from OpenSSL import SSL

from mitml4.layers.bridged_server import receive
from mitml4.layers.editing.reader import Reader
from mitml4.net import urgent
from mitml4.net.stream import Stream
from mitml4.tls.failure import TlsFailure
from mitml4.tls.stream import tls_over
from tests.streams import tcp_stream

GREETINGS = {"unknown": b"\x00\x01", "ftp": b"220 FTP ready\r\n"}
MUCH = 300_000  # enough to be spliced

Piece = tuple[bytes, bool]
"""(data, whether it is urgent)"""


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(urgent, "has_come", False)
    before = signal.getsignal(signal.SIGURG)
    urgent.listen_for_it()
    yield
    signal.signal(signal.SIGURG, before)


async def say(stream: trio.SocketStream, pieces: list[Piece]) -> None:
    for data, is_urgent in pieces:
        if is_urgent:
            assert await stream.socket.send(data, socket.MSG_OOB) == len(data)
        else:
            await stream.send_all(data)


async def hear(stream: Any) -> list[Piece]:
    """All that comes, the urgent byte apart."""
    heard: list[Piece] = []
    with trio.fail_after(10):
        while True:
            await trio.lowlevel.wait_readable(stream.socket)
            is_urgent = urgent.is_next(stream.socket)
            data = await stream.socket.recv(1 if is_urgent else 65536)
            if not data:
                return heard
            if heard and not is_urgent and not heard[-1][1]:
                data = heard.pop()[0] + data
            heard.append((data, is_urgent))


async def carry(lab, greeting: bytes, pieces: list[Piece]) -> tuple[list[Piece], tuple[str, ...]]:
    """What a server hears of what a client says, and the stack that it was said in."""
    heard: list[Piece] = []

    async def server(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        await stream.send_all(greeting)
        heard.extend(await hear(stream))
        await stream.send_eof()

    async with lab(server) as proxy:
        client = await proxy.connect()
        assert await client.receive_some()
        await say(client, pieces)
        await client.send_eof()
        with trio.fail_after(10):
            assert await client.receive_some() == b""
        await client.aclose()
        stack = (await proxy.wait_closed()).stack
    return heard, stack


WHERE = {
    "alone": [(b"U", True)],
    "first": [(b"U", True), (b"after", False)],
    "last": [(b"before", False), (b"U", True)],
    "between": [(b"before", False), (b"U", True), (b"after", False)],
    "after much": [(b"x" * MUCH, False), (b"U", True), (b"after", False)],
    "before much": [(b"U", True), (b"x" * MUCH, False)],
}


@pytest.mark.parametrize("pieces", WHERE.values(), ids=WHERE.keys())
async def test_in_what_nobody_knows(lab, pieces: list[Piece]) -> None:
    heard, stack = await carry(lab, GREETINGS["unknown"], pieces)
    assert (heard, stack) == (pieces, ("unknown",))


@pytest.mark.parametrize("few_bytes", [256, -1], ids=["in the kernel", "kept"])
async def test_in_a_line_that_a_conversation_waits_for(lab, monkeypatch, few_bytes: int) -> None:
    """Whether what comes before it is left in the kernel, or read and kept."""
    monkeypatch.setattr("mitml4.net.tcp._FEW_BYTES", few_bytes)
    monkeypatch.setattr("mitml4.net.tcp._FEW_PACKETS_MEMORY", few_bytes)
    pieces = [(b"USER a\r\nABOR\r", False), (b"\n", True), (b"QUIT\r\n", False)]
    heard, stack = await carry(lab, GREETINGS["ftp"], pieces)
    assert (heard, stack) == (pieces, ("ftp",))


async def test_before_a_client_hello_that_is_then_not_opened(lab) -> None:
    pieces = [(b"\x16\x03\x01", False), (b"\x02", True), (b"\x00\x01\x00\x01\xfc", False)]
    heard, _ = await carry(lab, GREETINGS["unknown"], pieces)
    assert heard == pieces


async def test_to_the_client_as_well(lab) -> None:
    async def server(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await say(stream, WHERE["between"])
        await stream.send_eof()

    async with lab(server) as proxy:
        client = await proxy.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        await client.send_all(b"\0")
        assert await hear(client) == WHERE["between"]


async def test_what_had_come_before_we_looked(lab) -> None:
    """The server says it at once, maybe before our connection has an owner to be told."""

    async def server(stream: trio.SocketStream) -> None:
        await say(stream, [(b"U", True)])
        await stream.receive_some()

    async with lab(server) as proxy:
        client = await proxy.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(client.socket)
        assert urgent.is_next(client.socket)


@pytest.mark.parametrize("pieces", WHERE.values(), ids=WHERE.keys())
async def test_nothing_is_lost_though_no_signal_comes(lab, pieces: list[Piece]) -> None:
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    heard, _ = await carry(lab, GREETINGS["unknown"], pieces)
    assert b"".join(data for data, _ in heard) == b"".join(data for data, _ in pieces)


async def by_the_bridge(stream: Stream) -> bytes:
    class Leg:
        received = b""

        def receive(self, data: memoryview) -> None:
            self.received += data

    leg: Any = Leg()
    while len(leg.received) < 5:
        await receive(stream, leg)
    return leg.received


async def by_openssl(stream: Stream) -> bytes:
    """It is refused once five bytes of it have come."""
    with pytest.raises(TlsFailure, match="http request"):
        await tls_over(stream, SSL.Context(SSL.TLS_METHOD), server_side=True).handshake()
    return b"GET /"


async def by_an_editor(stream: Stream) -> bytes:
    reader = Reader(stream)
    while len(reader.data) < 5:
        await reader.more()
    return reader.take()


@pytest.mark.parametrize("read", [by_the_bridge, by_openssl, by_an_editor])
async def test_where_it_means_nothing_it_is_a_byte_like_others(read) -> None:
    """In a handshake of TLS, and in HTTP that is edited: nobody waits for it until a timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near = tcp_stream(listener.accept()[0])
    with far:
        far.send(b"GET ")
        far.send(b"/", socket.MSG_OOB)
        with trio.fail_after(5):
            assert await read(near) == b"GET /"
    near.abort()
