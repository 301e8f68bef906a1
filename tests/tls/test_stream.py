"""The plaintext of a TLS connection, and the ways in which it ends."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from select import select

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from OpenSSL import SSL, crypto
from OpenSSL.crypto import X509

from bench.tls_records import HANDSHAKE, RecordWriter, logged_secret, ticket
from mitml4.net.memory import memory_pair
from mitml4.net.stream import StreamTruncated
from mitml4.protocols.conversation import Framing
from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.tls.bridge.extensions import RawExtensions
from mitml4.tls.bridge.messages import CertificateRequest
from mitml4.tls.bridge.renegotiation import MAX_RENEGOTIATIONS
from mitml4.tls.bridged_stream import BridgedStream
from mitml4.tls.context import Contexts
from mitml4.tls.failure import TlsFailure
from mitml4.tls.opened_stream import OpenedStream
from mitml4.tls.stream import TlsStream, tls_over
from tests.streams import tcp_stream
from tests.tls.bridge.ends import between

HELLO = ClientHello(
    legacy_version=0x0303,
    random=bytes(32),
    cipher_suites=(0x1301, 0xC02B),
    supported_versions=(0x0304, 0x0303),
)
CONTEXT = Contexts().server_side(HELLO).context


class Peer:
    """The far side: a TLS server of the standard library's, in blocking calls on a thread."""

    def __init__(self, sock: socket.socket, keylog: Path) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.num_tickets = 0
        context.keylog_filename = str(keylog)
        self.keylog = keylog
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

    def writer(self) -> RecordWriter:
        """Writes records in its place; it has written none after the handshake."""
        return RecordWriter(logged_secret(self.keylog, "SERVER_TRAFFIC_SECRET_0"))

    def close_notify(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()


class Bare(Framing):
    """Nothing around it; OpenSSL works on memory all the same."""

    def unwrap(self, data: bytes | memoryview) -> bytes | memoryview:
        return data

    def wrap(self, data: bytes) -> bytes:
        return data


async def by_openssl(
    near: socket.socket, peer: Peer, framing: Framing | None, context: SSL.Context = CONTEXT
) -> TlsStream:
    stream = tls_over(tcp_stream(near), context, framing=framing)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, peer.handshake)
            nursery.start_soon(stream.handshake)
    return stream


async def on_descriptor(near: socket.socket, peer: Peer) -> OpenedStream:
    return await by_openssl(near, peer, None)


async def in_memory(near: socket.socket, peer: Peer) -> OpenedStream:
    return await by_openssl(near, peer, Bare())


async def by_bridge(near: socket.socket, peer: Peer) -> OpenedStream:
    """The bridge between a client of OpenSSL's and the peer."""
    far, client_side = memory_pair()
    client, streams = tls_over(far, CONTEXT), []

    async def bridge() -> None:
        streams.extend(await between(client_side, tcp_stream(near)))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, peer.handshake)
            nursery.start_soon(bridge)
            nursery.start_soon(client.handshake)
    return streams[1]


def connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname()), listener.accept()[0]


@pytest.fixture(params=[on_descriptor, in_memory, by_bridge])
async def ends(request, tmp_path: Path) -> AsyncIterator[tuple[OpenedStream, Peer]]:
    """After the handshake."""
    near, far = connected()
    peer = Peer(far, tmp_path / "keylog")
    yield await request.param(near, peer), peer
    near.close()
    far.close()


async def receive(stream: OpenedStream) -> bytes:
    buffer = memoryview(bytearray(65536))
    with trio.fail_after(5):
        while (count := stream.receive_nowait(buffer)) is None:
            await stream.wait_receivable()
    return bytes(buffer[:count])


async def everything_arrived(stream: OpenedStream, count: int) -> None:
    """Wait until the kernel has that many bytes, or the end, unread."""
    with trio.fail_after(5):
        await stream.below.peek(count, 65536)


async def test_records_before_a_fin_are_not_lost_with_it(ends) -> None:
    stream, peer = ends
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
    peer.write(b"last")
    peer.close_notify()
    assert await receive(stream) == b"last"
    assert await receive(stream) == b""
    assert await receive(stream) == b""


async def test_a_broken_record_is_a_failure_after_what_was_whole(ends) -> None:
    stream, peer = ends
    peer.write(b"whole")
    peer.raw.sendall(b"\x17\x03\x03\x00\x14" + bytes(20))
    await everything_arrived(stream, 40)
    assert await receive(stream) == b"whole"
    with pytest.raises(TlsFailure):
        await receive(stream)


async def test_what_was_peeked_at_is_received_first_and_once(ends) -> None:
    stream, peer = ends
    peer.write(b"abc")
    assert await stream.peek(0, 100) == b"abc"
    peer.write(b"def")
    assert await stream.peek(3, 100) == b"abcdef"
    stream.discard(2)
    peer.write(b"ghi")
    assert await receive(stream) == b"cdef"
    assert await receive(stream) == b"ghi"


COUNT = 850
# OpenSSL itself ends a connection that sends many empty records, or many warnings, in a row; the
# bridge also one that sends many key updates or tickets.
FLOODS: dict[str, Callable[[RecordWriter, int], bytes]] = {
    "key updates": lambda peer, row: b"".join(peer.key_update() for _ in range(row)),
    "key updates to be answered": lambda peer, row: b"".join(
        peer.key_update(requested=True) for _ in range(row)
    ),
    "tickets": lambda peer, row: b"".join(peer.record(HANDSHAKE, ticket(n)) for n in range(row)),
    "tickets in one record": lambda peer, row: peer.record(
        HANDSHAKE, b"".join(map(ticket, range(row)))
    ),
    "records of a byte": lambda peer, row: b"".join(peer.data(b"x") for _ in range(row)),
}


def written(flood: str, stream: OpenedStream, writer: RecordWriter) -> bytes:
    """So many of them, and data at the end."""
    row = 25 if isinstance(stream, BridgedStream) else COUNT
    rows = [FLOODS[flood](writer, row) + writer.data(b"x") for _ in range(COUNT // row)]
    return b"".join(rows) + writer.data(b"!")


async def copy(stream: OpenedStream, _total: int) -> bytes:
    """As a relay reads."""
    buffer, got = memoryview(bytearray(65536)), b""
    while not got.endswith(b"!"):
        count = stream.receive_nowait(buffer)
        if count is None:
            await stream.wait_receivable()
        else:
            got += buffer[:count]
            await trio.lowlevel.checkpoint()
    return got


async def look(stream: OpenedStream, _total: int) -> bytes:
    """As a conversation that has not seen enough yet, and is shown what there is."""
    got = b""
    while not got.endswith(b"!"):
        await stream.wait_receivable()
        got = await stream.peek(len(got), 65536)
    stream.discard(len(got))
    return got


async def look_for_all(stream: OpenedStream, total: int) -> bytes:
    got = await stream.peek(total - 1, 65536)
    stream.discard(len(got))
    return got


@pytest.mark.parametrize("flood", FLOODS)
async def test_others_run_while_many_records_are_read(ends, flood: str) -> None:
    """All of them are there when the reading begins: nothing but its own bound lets others run."""
    stream, peer = ends
    writer, total, turns = peer.writer(), 0, 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    for read in (copy, look, look_for_all):
        records = written(flood, stream, writer)
        peer.raw.sendall(records)
        with trio.fail_after(5):
            await stream.below.peek(len(records) - 1, len(records))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_turns)
                turns = 0
                total = len(await read(stream, total))
                nursery.cancel_scope.cancel()
        assert turns >= COUNT // 64, read.__name__


@pytest.mark.parametrize("framing", [None, Bare()])
async def test_a_record_is_read_to_its_end_though_it_has_several_messages(
    framing: Framing | None, tmp_path: Path
) -> None:
    """The server waits for the answer to the last one, and says nothing meanwhile."""
    hello = replace(HELLO, extensions=(Extension.POST_HANDSHAKE_AUTH,))
    algorithms = RawExtensions(((Extension.SIGNATURE_ALGORITHMS, bytes.fromhex("00020403")),))
    request = CertificateRequest(b"later", algorithms).encode()
    near, far = connected()
    with near, far:
        peer = Peer(far, tmp_path / "keylog")
        context = Contexts().server_side(hello).context
        stream = await by_openssl(near, peer, framing, context)
        many = b"".join(map(ticket, range(40)))
        peer.raw.sendall(peer.writer().record(HANDSHAKE, many + request))
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.peek, 0, 1)
                answer = await trio.to_thread.run_sync(peer.raw.recv, 5)
                nursery.cancel_scope.cancel()
        assert answer[:1] == b"\x17"


class Renegotiating:
    """A server of TLS 1.2, in blocking calls on a thread."""

    def __init__(self, sock: socket.socket) -> None:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        # A session that is resumed has no certificate.
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        sock.settimeout(None)
        self.sock = sock
        self.tls = SSL.Connection(context, sock)
        self.show("own", self.tls)
        self.tls.set_accept_state()

    @staticmethod
    def show(name: str, tls: SSL.Connection) -> None:
        key, certificate = a_certificate(name)
        tls.use_certificate(certificate)
        tls.use_privatekey(key)

    def renegotiate(self, name: str) -> None:
        self.show(name, self.tls)
        self.tls.renegotiate()
        self.tls.do_handshake()
        self.sock.setblocking(False)
        while True:
            with suppress(SSL.WantReadError):
                self.tls.recv(1)
            if not self.tls.renegotiate_pending():
                break
            select([self.sock], [], [])
        self.tls.sendall(b"words")


@cache
def a_certificate(name: str) -> tuple[crypto.PKey, crypto.X509]:
    key, certificate = crypto.PKey.from_cryptography_key(generate_private_key(SECP256R1())), X509()
    certificate.set_pubkey(key)
    certificate.get_subject().CN = name
    certificate.gmtime_adj_notBefore(0)
    certificate.gmtime_adj_notAfter(3600)
    certificate.sign(key, "sha256")
    return key, certificate


async def shake(server: Renegotiating, stream: TlsStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, server.tls.do_handshake)
        nursery.start_soon(stream.handshake)
    assert stream.presented().leaf


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["own", "another's"])
async def test_a_server_shows_the_same_certificate_in_a_renegotiation(name: str) -> None:
    """The client has a copy of the first one, and could not refuse another."""
    near, far = connected()
    with near, far:
        server = Renegotiating(far)
        stream = tls_over(tcp_stream(near), CONTEXT)
        with trio.fail_after(10):
            await shake(server, stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, server.renegotiate, name)
                if name == "own":
                    assert await stream.peek(4, 5) == b"words"
                    return
                with pytest.raises(TlsFailure, match="another certificate"):
                    await stream.peek(0, 5)
                with pytest.raises(BrokenPipeError):
                    await stream.send_all(memoryview(b"?"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("framing", [None, Bare()])
async def test_a_server_may_not_renegotiate_for_ever(framing: Framing | None) -> None:
    """Each costs us a key exchange. The next one is declined, which OpenSSL ends the connection
    for."""
    near, far = connected()

    def renegotiate(server: Renegotiating) -> None:
        for _ in range(MAX_RENEGOTIATIONS):
            server.renegotiate("own")
        with pytest.raises(SSL.Error, match="no renegotiation"):
            server.renegotiate("own")

    with near, far:
        server = Renegotiating(far)
        stream = tls_over(tcp_stream(near), CONTEXT, framing=framing)
        said = 5 * MAX_RENEGOTIATIONS
        with trio.fail_after(10):
            await shake(server, stream)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, renegotiate, server)
                assert await stream.peek(said - 1, 100) == b"words" * MAX_RENEGOTIATIONS
                with pytest.raises(TlsFailure):
                    await stream.peek(said, 100)
