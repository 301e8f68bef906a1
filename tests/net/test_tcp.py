"""What is unread of a connection, however many packets it came in."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from typing import Any

import pytest
import trio

from mitml4.net import dial, urgent
from mitml4.net.splice import PipePool, splice_burst
from mitml4.net.tcp import TcpStream
from tests.streams import tcp_stream

ROUNDS = 40


def connected() -> tuple[TcpStream, socket.socket]:
    """A stream, and the far end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    return tcp_stream(near), far


async def test_many_packets_are_not_looked_at_again_and_again(monkeypatch) -> None:
    """The kernel would look at each of them for each that is asked for: they are read instead, and
    the bytes come out as they would otherwise."""
    monkeypatch.setattr("mitml4.net.tcp._FEW_PACKETS_MEMORY", 0)
    stream, far = connected()
    data = bytes(range(256)) * ROUNDS
    seen = b""
    with far, trio.fail_after(5):
        for at in range(0, len(data), 256):
            far.sendall(data[at : at + 256])
            seen = await stream.peek(len(seen), 65536)
        assert seen == stream.peek_nowait(65536) == data
        assert stream.kernel_source is None
        assert stream.unread_count() == len(data)
        stream.discard(1000)
        buffer = memoryview(bytearray(65536))
        count = stream.receive_nowait(buffer)
        assert buffer[:count] == data[1000:]
        now: Any = stream.kernel_source
        assert now is stream
        assert stream.receive_nowait(buffer) is None
    stream.close()


async def test_the_last_bytes_leave_in_one_packet_with_the_end() -> None:
    def packets(end: socket.socket) -> int:
        """Those that have come so far: tcpi_segs_in of linux/tcp.h."""
        info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
        return int(struct.unpack_from("=I", info, 140)[0])

    stream, far = connected()
    before = packets(far)
    with far, trio.fail_after(5):
        assert not stream.is_at_end
        await stream.send_last(memoryview(b"last"))
        assert far.recv(10) == b"last"
        assert far.recv(10) == b""
        assert packets(far) == before + 1
        far.sendall(b"x")
        await stream.wait_receivable()
        far.shutdown(socket.SHUT_WR)
        assert not stream.is_at_end
        stream.discard(1)
        await stream.wait_receivable()
        assert stream.is_at_end
    stream.close()


async def test_a_reset_is_not_taken_for_the_end_and_is_still_reported() -> None:
    """Also where we have ended before, so that nothing but its error tells that it was a reset."""
    stream, far = connected()
    with trio.fail_after(5):
        await stream.send_eof()
        far.sendall(b"last")
        await stream.wait_receivable()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        stream.discard(4)
        assert not stream.is_at_end
        with pytest.raises(ConnectionResetError):
            await stream.wait_end()
    stream.close()


async def test_it_is_known_what_a_far_side_may_have_until_the_stream_is_closed() -> None:
    stream, far = connected()
    with far:
        assert not stream.may_have_all
        await stream.send_eof()
        assert stream.may_have_all
        stream.close()
        assert not stream.may_have_all


async def test_a_reset_that_was_told_is_told_again_though_we_have_ended_before() -> None:
    stream, far = connected()
    with trio.fail_after(5):
        await stream.send_eof()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await stream.wait_reset()
            with pytest.raises(ConnectionResetError):
                stream.raise_if_reset()
        with pytest.raises(ConnectionResetError):
            await stream.wait_end()
    stream.close()


async def test_an_end_that_comes_behind_a_reset_does_not_hide_it() -> None:
    """Also where sending has met the reset first, which the kernel reports only once."""
    stream, far = connected()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    with trio.fail_after(5):
        await stream.wait_receivable()
        with pytest.raises(ConnectionResetError):
            await stream.send_all(memoryview(b"close_notify"))
        await stream.send_eof()
        assert not stream.may_have_all
        with pytest.raises(ConnectionResetError):
            await stream.wait_end()
    stream.close()


async def test_a_packet_that_comes_while_one_looks_is_seen_whole(monkeypatch) -> None:
    """Where nothing was counted, a first byte is not all that there is."""
    stream, far = connected()
    count = TcpStream._count_in_kernel

    def count_before_it_comes(self: TcpStream) -> int:
        counted = count(self)
        monkeypatch.undo()
        far.sendall(b"\x05\x02\x00\x02")
        return counted

    monkeypatch.setattr(TcpStream, "_count_in_kernel", count_before_it_comes)
    with far:
        seen = stream.peek_nowait(100)
    stream.close()
    assert seen == b"\x05\x02\x00\x02"


async def read_on(stream: TcpStream) -> None:
    if not await stream.peek(0, 100):
        stream.raise_if_reset()


@pytest.mark.parametrize("few_bytes", [256, -1], ids=["in the kernel", "kept"])
async def test_a_reset_is_told_after_what_came_before_it(monkeypatch, few_bytes: int) -> None:
    monkeypatch.setattr("mitml4.net.tcp._FEW_BYTES", few_bytes)
    monkeypatch.setattr("mitml4.net.tcp._FEW_PACKETS_MEMORY", few_bytes)
    stream, far = connected()
    far.sendall(b"piece")
    with trio.fail_after(5):
        assert await stream.peek(0, 100) == b"piece"
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        assert await stream.peek(5, 100) == b"piece"
        stream.discard(5)
        with pytest.raises(ConnectionResetError):
            await read_on(stream)
    stream.close()


async def test_a_connection_that_was_reset_has_nothing_left_to_send() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    stream = tcp_stream(ours)
    while True:
        try:
            ours.send(bytes(1 << 20))
        except BlockingIOError:
            break
    assert stream.unsent_count() > 0
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    assert stream.unsent_count() == 0
    stream.close()
    assert not stream.is_delivering


async def test_urgent_data_is_no_end_for_splice_though_the_end_has_come() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near, far = socket.create_connection(listener.getsockname()), listener.accept()[0]
        out, heard = socket.create_connection(listener.getsockname()), listener.accept()[0]
    source, sink, pipes = tcp_stream(near), tcp_stream(out), PipePool()
    with far, heard:
        far.sendall(b"before")
        far.send(b"U", socket.MSG_OOB)
        far.sendall(b"after")
        far.shutdown(socket.SHUT_WR)
        with pipes.lend() as pipe:
            assert pipe
            assert await splice_burst(source, sink, pipe, None) == len(b"before")
            assert await splice_burst(source, sink, pipe, None) is None
            assert source.peek_urgent() == b"U"
            source.discard(1)
            assert await splice_burst(source, sink, pipe, None) == len(b"after")
            assert await splice_burst(source, sink, pipe, None) == 0
    source.close()
    sink.close()
    pipes.close()


async def test_one_call_reads_all_that_is_there_up_to_what_is_told_once(monkeypatch) -> None:
    """More than the first system call has asked for, but neither urgent data nor a reset."""
    monkeypatch.setattr(urgent, "has_come", False)
    for then in ("nothing", "the end", "a reset", "urgent data"):
        for size in (8191, 8192, 8193, 60_000):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                far = socket.create_connection(listener.getsockname())
                stream = tcp_stream(listener.accept()[0])
            data = bytes(range(200)) * (size // 200 + 1)
            far.sendall(data[:size])
            buffer = memoryview(bytearray(65536))
            with trio.fail_after(5):
                await stream.peek(size - 1, 65536)
                if then == "urgent data":
                    far.send(b"U", socket.MSG_OOB)
                    poller = select.poll()
                    poller.register(stream.socket, select.POLLPRI)
                    assert poller.poll(5000)
                    urgent.expect_on(stream.socket)
                elif then == "the end":
                    far.shutdown(socket.SHUT_WR)
                elif then == "a reset":
                    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    far.close()
                while then in ("the end", "a reset") and not stream.has_ended():
                    await trio.lowlevel.checkpoint()
                assert stream.receive_nowait(buffer) == size
                assert buffer[:size] == data[:size]
                match then:
                    case "nothing":
                        assert stream.receive_nowait(buffer) is None
                    case "the end":
                        assert stream.receive_nowait(buffer) == 0
                    case "a reset":
                        with pytest.raises(ConnectionResetError):
                            stream.receive_nowait(buffer)
                    case "urgent data":
                        assert stream.receive_nowait(buffer) is None
                        assert stream.peek_urgent() == b"U"
            stream.close()
            far.close()


class Failing(socket.socket):
    """Of which the kernel lets no option be set or read any more."""

    is_failing = False

    def setsockopt(self, *arguments: Any) -> None:
        self._fail()
        super().setsockopt(*arguments)

    def getsockopt(self, *arguments: Any) -> Any:
        self._fail()
        return super().getsockopt(*arguments)

    def _fail(self) -> None:
        if self.is_failing:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.mark.parametrize("end", [TcpStream.close, TcpStream.abort])
async def test_it_is_closed_however_the_kernel_fails(end) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    near = Failing(fileno=accepted.detach())
    with far:
        stream = tcp_stream(near)
        near.is_failing = True
        end(stream)
        assert stream.is_closed
        assert stream.wire_bytes == (0, 0)
        dial.abort(near)  # closed already
        with pytest.raises(ConnectionResetError):
            far.recv(1)
