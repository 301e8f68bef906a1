"""What a stream of the bridge sends by itself, how it ends, and what it holds."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest
import trio
import trio.testing

from mitml4.net import urgent
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.net.stream import Stream, StreamTruncated
from mitml4.protocols.tls.alerts import Alert
from mitml4.protocols.tls.records import RecordType
from mitml4.tls import bridged_stream
from mitml4.tls.bridge import connection
from mitml4.tls.bridge.messages import KeyUpdate
from mitml4.tls.bridged_stream import BridgedStream
from mitml4.tls.failure import TlsFailure
from mitml4.tls.stream import TlsStream, tls_over
from tests.layers.conftest import note_sent
from tests.streams import tcp_stream
from tests.tls.bridge.ends import Far, between, bridged, connections
from tests.tls.bridge.peers import client_context, server_context

KEY_UPDATE = (RecordType.HANDSHAKE, KeyUpdate(request=False).encode())
DATA = RecordType.APPLICATION_DATA
BROKEN = b"\x17\x03\x03\x00\x20" + bytes(32)
FATAL = 2


def alert(number: int) -> tuple[int, bytes]:
    return RecordType.ALERT, bytes([FATAL, number])


class Ends:
    """A stream, and what its far end writes and reads below TLS."""

    def __init__(self, window: int = 65536) -> None:
        below, self.wire = memory_pair(window)
        connection, self.far = Far.of_new()
        self.stream = BridgedStream(below, connection)

    async def write(self, *records: bytes) -> None:
        await self.wire.send_all(memoryview(b"".join(records)))

    def sent(self) -> list[tuple[int, bytes]]:
        """The records that have come from the stream."""
        data = self.wire.peek_nowait(1 << 20)
        self.wire.discard(len(data))
        return self.far.read(data)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    with trio.fail_after(5):
        yield Ends()


def receive(stream: Stream) -> bytes | None:
    buffer = memoryview(bytearray(1 << 17))
    count = stream.receive_nowait(buffer)
    return None if count is None else bytes(buffer[:count])


async def test_a_broken_record_is_answered_at_once_and_raised_behind_the_data(ends: Ends) -> None:
    await ends.write(ends.far.data(b"whole"), BROKEN)
    assert receive(ends.stream) == b"whole"
    assert ends.sent() == [alert(Alert.BAD_RECORD_MAC)]
    for _ in range(2):
        with pytest.raises(TlsFailure, match="authenticate") as failure:
            receive(ends.stream)
        assert failure.value.alert is None
    assert isinstance(ends.stream.failure, TlsFailure)
    await ends.stream.wait_receivable()
    with pytest.raises(TlsFailure):
        await ends.stream.peek(0, 10)
    assert ends.stream.peek_nowait(10) == b""
    with pytest.raises(BrokenPipeError):
        await ends.stream.send_all(memoryview(b"answer"))
    await ends.stream.send_eof()
    assert ends.sent() == []


async def test_a_fatal_alert_is_raised_with_its_number(ends: Ends) -> None:
    await ends.write(ends.far.data(b"whole"), ends.far.alert(FATAL, Alert.UNKNOWN_CA))
    assert await ends.stream.peek(0, 100) == b"whole"
    ends.stream.discard(5)
    with pytest.raises(TlsFailure, match="unknown_ca") as failure:
        await ends.stream.peek(0, 100)
    assert failure.value.alert == Alert.UNKNOWN_CA
    with pytest.raises(BrokenPipeError):
        await ends.stream.send_all(memoryview(b"answer"))
    assert ends.sent() == []


async def test_a_fin_without_close_notify_ends_only_the_reading(ends: Ends) -> None:
    await ends.write(ends.far.data(b"whole"), ends.far.data(b"half")[:9])
    await ends.wire.send_eof()
    assert receive(ends.stream) == b"whole"
    with pytest.raises(StreamTruncated) as truncation:
        receive(ends.stream)
    assert not isinstance(truncation.value, TlsFailure)
    await ends.stream.send_all(memoryview(b"answer"))
    await ends.stream.send_eof()
    assert ends.sent() == [(DATA, b"answer"), (RecordType.ALERT, b"\1\0")]


async def test_a_reset_is_raised_again_and_again(ends: Ends) -> None:
    ends.wire.abort()
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            receive(ends.stream)


async def test_the_opening_is_told_once() -> None:
    async def opening(act: Callable[[Ends], Awaitable[None]]) -> list[int | Exception]:
        ends, told = Ends(), []
        ends.stream.on_opening = told.append
        assert receive(ends.stream) is None
        await ends.write(ends.far.key_update())
        assert receive(ends.stream) is None
        assert told == []
        await act(ends)
        for _ in range(2):
            ends.stream.peek_nowait(100)
        return told

    async def break_it(ends: Ends) -> None:
        await ends.write(BROKEN)

    assert await opening(lambda ends: ends.write(ends.far.data(b"abc"), BROKEN)) == [3]
    assert await opening(lambda ends: ends.write(ends.far.alert(1, Alert.CLOSE_NOTIFY))) == [0]
    (failure,) = await opening(break_it)
    assert isinstance(failure, TlsFailure)
    (failure,) = await opening(lambda ends: ends.wire.send_eof())
    assert type(failure) is StreamTruncated


async def test_a_key_update_is_answered_while_nobody_sends(ends: Ends) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ends.stream.peek, 0, 100)
        await trio.testing.wait_all_tasks_blocked()
        await ends.write(ends.far.key_update(requested=True))
        await trio.testing.wait_all_tasks_blocked()
        assert ends.sent() == [KEY_UPDATE]
        await ends.write(ends.far.data(b"under the new key"))
    await ends.stream.send_all(memoryview(b"ours"))
    assert ends.sent() == [(DATA, b"ours")]


async def test_an_answer_that_has_no_room_does_not_keep_from_reading() -> None:
    ends = Ends(window=30)
    with trio.fail_after(5):
        await ends.stream.send_all(memoryview(b"12345678"))  # a record of 30 bytes
        for _ in range(10):
            await ends.write(ends.far.key_update(requested=True))
            assert receive(ends.stream) is None
            await ends.write(ends.far.data(b"read"))
            assert receive(ends.stream) == b"read"
        assert ends.sent() == [(DATA, b"12345678")]
        got = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.stream.send_all, memoryview(b"answer"))
            while len(got) < 3:
                got += await read_record(ends)
        assert got == [KEY_UPDATE, KEY_UPDATE, (DATA, b"answer")]


async def test_an_answer_comes_behind_what_is_being_sent() -> None:
    ends = Ends(window=100)
    got = []
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.stream.send_all, memoryview(bytes(1000)))
            await trio.testing.wait_all_tasks_blocked()
            await ends.write(ends.far.key_update(requested=True))
            assert receive(ends.stream) is None
            while len(got) < 2:
                nursery.cancel_scope.deadline = trio.current_time() + 5
                got += await read_record(ends)
    assert got == [(DATA, bytes(1000)), KEY_UPDATE]


async def read_record(ends: Ends) -> list[tuple[int, bytes]]:
    header = await exactly(ends.wire, 5)
    return ends.far.read(header + await exactly(ends.wire, int.from_bytes(header[3:], "big")))


async def exactly(stream: MemoryStream, count: int) -> bytes:
    got = b""
    while len(got) < count:
        got += (more := await stream.peek(0, count - len(got)))
        stream.discard(len(more))
    return got


async def test_an_answer_waits_for_data_where_the_stream_below_cannot_send_at_once() -> None:
    """A stream of OpenSSL's cannot say whether it has room."""

    class Slow(MemoryStream):
        send_nowait = Stream.send_nowait

    ends = Ends()
    assert isinstance(ends.stream.below, MemoryStream)
    ends.stream.below.__class__ = Slow
    await ends.write(ends.far.key_update(requested=True))
    assert receive(ends.stream) is None
    assert ends.sent() == []
    await ends.stream.send_all(memoryview(b"data"))
    assert ends.sent() == [KEY_UPDATE, (DATA, b"data")]


async def test_after_a_send_that_was_cancelled_nothing_more_is_sent() -> None:
    ends = Ends(window=100)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.stream.send_all, memoryview(bytes(1000)))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert len(ends.wire.peek_nowait(1000)) == 100
        ends.wire.discard(100)
        with pytest.raises(BrokenPipeError):
            await ends.stream.send_all(memoryview(b"more"))
        await ends.stream.send_eof()
        await ends.write(BROKEN)
        with pytest.raises(TlsFailure):
            receive(ends.stream)
        assert ends.wire.peek_nowait(1000) == b""
    ends.stream.abort()
    assert ends.wire.was_reset


async def test_an_end_of_ours_is_sent_once_and_data_behind_it_is_refused(ends: Ends) -> None:
    await ends.stream.send_eof()
    await ends.stream.send_eof()
    assert ends.sent() == [(RecordType.ALERT, b"\1\0")]
    with pytest.raises(BrokenPipeError) as error:
        await ends.stream.send_all(memoryview(b"more"))
    assert error.value.errno == errno.EPIPE


async def test_an_end_goes_in_one_piece_with_the_data_before_it(ends: Ends) -> None:
    """So do messages that are due, and the end below, where that is asked for."""
    ticket = (RecordType.HANDSHAKE, b"\4\0\0\1t")
    for ends_below in (False, True):
        for size in (4, 100, 20_000):  # a record, some, and more than are sealed at once
            ends = Ends()
            ends.stream.connection._max_content = 64
            ends.stream.connection.queue(ticket[1])
            data, pieces = os.urandom(size), list[bytes]()
            note_sent(cast(MemoryStream, ends.stream.below), pieces)
            await ends.stream.send_last(memoryview(data), ends_below=ends_below)
            first, *records, last = ends.far.read(b"".join(pieces))
            assert first == ticket
            assert b"".join(content for _, content in records) == data
            assert last == (RecordType.ALERT, b"\1\0")
            assert len(pieces) == 1 or size > 2000
            assert ends.wire.has_ended() == ends_below
            with pytest.raises(BrokenPipeError):
                await ends.stream.send_all(memoryview(b"more"))


async def test_an_alert_can_be_passed_on(ends: Ends) -> None:
    await ends.stream.send_all(memoryview(b"before"))
    await ends.stream.send_alert(Alert.UNKNOWN_CA)
    assert ends.sent() == [(DATA, b"before"), alert(Alert.UNKNOWN_CA)]
    await ends.write(ends.far.data(b"still"))
    assert receive(ends.stream) == b"still"


async def test_a_message_goes_out_at_once_or_before_the_data_that_is_being_sent() -> None:
    ends = Ends(window=100)
    ticket = (RecordType.HANDSHAKE, b"\4\0\0\1t")
    ends.stream.connection.queue(ticket[1])
    ends.stream.flush_nowait()
    assert ends.sent() == [ticket]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.stream.send_all, memoryview(bytes(16384 * 9)))
            await trio.testing.wait_all_tasks_blocked()
            ends.stream.connection.queue(ticket[1])
            ends.stream.flush_nowait()
            got = [(await read_record(ends))[0] for _ in range(10)]
    assert got.count(ticket) == 1
    assert b"".join(content for kind, content in got if kind == DATA) == bytes(16384 * 9)


async def test_what_is_due_goes_in_one_piece_with_the_data_behind_it(ends: Ends) -> None:
    sent: list[int] = []
    send = ends.stream.below.send_nowait

    def count(data: bytes | memoryview) -> int:
        sent.append(len(data))
        return send(data)

    ends.stream.below.send_nowait = count
    ticket = (RecordType.HANDSHAKE, b"\4\0\0\1t")
    ends.stream.connection.queue(ticket[1])
    await ends.stream.send_all(memoryview(b"data"))
    assert ends.sent() == [ticket, (DATA, b"data")]
    assert len(sent) == 1


@pytest.mark.parametrize("is_data_first", [True, False])
async def test_the_end_of_a_handshake_goes_with_data_or_before_a_wait(
    ends: Ends, is_data_first: bool
) -> None:
    buffer = memoryview(bytearray(100))
    _, length = ends.stream.connection.seal(memoryview(b"finished"), buffer)
    ends.stream.send_with_data(bytes(buffer[:length]))
    assert receive(ends.stream) is None
    assert ends.sent() == []
    if is_data_first:
        await ends.stream.send_all(memoryview(b"data"))
        assert ends.sent() == [(DATA, b"finished"), (DATA, b"data")]
    else:
        with trio.move_on_after(0.01):
            await ends.stream.wait_receivable()
        assert ends.sent() == [(DATA, b"finished")]


async def test_nothing_is_held_between_reads_and_sends(ends: Ends) -> None:
    await ends.write(ends.far.data(b"some"), ends.far.data(bytes(500))[:100])
    await ends.stream.send_all(memoryview(bytes(20_000)))
    assert receive(ends.stream) == b"some"
    assert len(ends.stream.connection.kept) == 100
    assert ends.stream._unsent == b""
    assert ends.stream._ahead == b""


async def test_buffers_are_given_back(ends: Ends) -> None:
    one, other = bridged(*bridged(*memory_pair()))
    await one.send_all(memoryview(bytes(20_000)))
    assert len(await other.peek(19_999, 30_000)) == 20_000
    before = len(bridged_stream._buffers)
    for _ in range(5):
        await one.send_all(memoryview(bytes(20_000)))
        other.peek_nowait(65_536)
        other.discard(20_000)
    assert len(bridged_stream._buffers) == before


async def test_a_full_read_takes_eight_records_at_once() -> None:
    """Also if nothing but records came below, and the reader has no byte more room than for their
    content."""
    one, other = bridged(*memory_pair(1 << 20))
    await one.send_all(memoryview(bytes(200_000)))
    assert other.receive_nowait(memoryview(bytearray(131_072))) == 131_072
    assert not other.connection.kept


async def test_urgent_data_in_tls_is_a_part_of_it(monkeypatch) -> None:
    monkeypatch.setattr(urgent, "has_come", False)
    previous = signal.getsignal(signal.SIGURG)
    urgent.listen_for_it()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = tcp_stream(socket.create_connection(listener.getsockname()))
        far_socket, _ = listener.accept()
    connection, far = Far.of_new()
    stream = BridgedStream(near, connection)
    record = far.data(b"urgent")
    far_socket.send(record[:10])
    far_socket.send(record[10:11], socket.MSG_OOB)
    far_socket.send(record[11:])
    with trio.fail_after(5):
        await near.peek(9, 100)
        assert await stream.peek(0, 100) == b"urgent"
    far_socket.close()
    near.abort()
    signal.signal(signal.SIGURG, previous)


async def to_server() -> tuple[BridgedStream, TlsStream]:
    """The bridge's stream to a server of OpenSSL's, and that."""
    (far_client, near_client), (near_server, far_server) = memory_pair(), memory_pair()
    client = tls_over(far_client, client_context())
    server = tls_over(far_server, server_context(), server_side=True)
    streams: list[BridgedStream] = []

    async def bridge() -> None:
        streams.extend(await between(near_client, near_server))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(server.handshake)
        nursery.start_soon(bridge)
    return streams[1], server


async def test_openssl_understands_our_key_updates_and_alerts(monkeypatch) -> None:
    monkeypatch.setattr(connection, "_SEALED_WITH_ONE_KEY", 2)
    client, server = await to_server()
    data = os.urandom(300_000)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, memoryview(data))
            got = b""
            while len(got) < len(data):
                got += (more := await server.peek(0, 65536))
                server.discard(len(more))
        assert got == data
        await client.send_alert(Alert.CERTIFICATE_UNKNOWN)
        with pytest.raises(TlsFailure, match="alert certificate unknown"):
            await server.peek(0, 1)


def test_both_ends_of_a_connection_may_be_ours_in_tls12() -> None:
    async def talk() -> None:
        near, far = memory_pair()
        client, server = connections(0xC02F)
        one, other = BridgedStream(near, client), BridgedStream(far, server)
        await one.send_all(memoryview(b"request"))
        assert receive(other) == b"request"
        await other.send_all(memoryview(b"response"))
        await other.send_eof()
        assert [receive(one), receive(one)] == [b"response", b""]

    trio.run(talk)
