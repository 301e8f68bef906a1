"""The plaintext of a TLS connection, and the ways in which it ends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
import trio
import trustme

from mitml4.net.stream import StreamTruncated, TcpStream
from mitml4.tls.context import Contexts, Offer
from mitml4.tls.stream import TlsFailure, TlsStream, tls_over

CONTEXT = (
    Contexts()
    .egress(Offer(cipher_suites=(0x1301, 0xC02B), lowest_version=0x0303, highest_version=0x0304))
    .context
)


class Peer:
    """The far side: a TLS server of the standard library's, in blocking calls on a thread."""

    def __init__(self, sock: socket.socket) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("peer.test").configure_cert(context)
        self.raw = sock
        self.raw.settimeout(5)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def handshake(self) -> None:
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.flush()
                self.incoming.write(self.raw.recv(65536))
        self.flush()

    def flush(self) -> None:
        self.raw.sendall(self.outgoing.read())

    def write(self, *records: bytes) -> None:
        for record in records:
            self.tls.write(record)
        self.flush()

    def close_notify(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()


@pytest.fixture
def ends() -> Iterator[tuple[TlsStream, Peer]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    stream = tls_over(TcpStream(near), CONTEXT)
    yield stream, Peer(far)
    near.close()
    far.close()


async def shake_hands(stream: TlsStream, peer: Peer) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, peer.handshake)
            nursery.start_soon(stream.handshake)


async def receive(stream: TlsStream) -> bytes:
    buffer = memoryview(bytearray(65536))
    with trio.fail_after(5):
        while (count := stream.receive_nowait(buffer)) is None:
            await stream.wait_receivable()
    return bytes(buffer[:count])


async def everything_arrived(stream: TlsStream, count: int) -> None:
    """Wait until the kernel has that many bytes, or the end, unread."""
    with trio.fail_after(5):
        await stream.transport.peek(count, 65536)


async def test_records_before_a_fin_are_not_lost_with_it(ends) -> None:
    stream, peer = ends
    await shake_hands(stream, peer)
    peer.write(b"one", b"two")
    peer.raw.shutdown(socket.SHUT_WR)
    await everything_arrived(stream, 60_000)
    assert await receive(stream) == b"onetwo"
    with pytest.raises(StreamTruncated):
        await receive(stream)
    with pytest.raises(StreamTruncated):
        await receive(stream)


async def test_close_notify_is_the_end_and_stays_it(ends) -> None:
    stream, peer = ends
    await shake_hands(stream, peer)
    peer.write(b"last")
    peer.close_notify()
    assert await receive(stream) == b"last"
    assert await receive(stream) == b""
    assert await receive(stream) == b""


async def test_a_broken_record_is_a_failure_after_what_was_whole(ends) -> None:
    stream, peer = ends
    await shake_hands(stream, peer)
    peer.write(b"whole")
    peer.raw.sendall(b"\x17\x03\x03\x00\x14" + bytes(20))
    await everything_arrived(stream, 70)
    assert await receive(stream) == b"whole"
    with pytest.raises(TlsFailure):
        await receive(stream)


async def test_what_was_peeked_at_is_received_first_and_once(ends) -> None:
    stream, peer = ends
    await shake_hands(stream, peer)
    peer.write(b"abc", b"def")
    assert await stream.peek(0, 100) == b"abc"
    assert await stream.peek(3, 100) == b"abcdef"
    stream.discard(2)
    assert await receive(stream) == b"cdef"
