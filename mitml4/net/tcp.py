"""A TCP connection whose bytes can be peeked at before they are consumed.

A TcpStream peeks with MSG_PEEK, so that unread bytes stay in the kernel: OpenSSL can take over the
descriptor in the middle of a connection, and an opaque flow can be spliced. SO_RCVLOWAT makes the
kernel report the stream as readable only when there are more bytes than were already seen. A read
stops before urgent data (see net/urgent.py).

Peeking at the bytes of n packets one by one takes the kernel quadratic time, because MSG_PEEK
starts at the first packet each time. If many packets are queued, they are therefore read, and kept
here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from typing import Final

import trio

from mitml4.net import resets, urgent
from mitml4.net.stream import Transport, UrgentAhead

__all__ = ["TcpStream", "prepare"]

_FULL_BUFFER_PAUSE_S: Final = 0.02
_FEW_BYTES: Final = 256
_FEW_PACKETS_MEMORY: Final = 256 * 1024
"""Up to this number of bytes, or of memory for packets, peeking costs next to nothing."""
_MEMORY_PER_BYTE: Final = 16
_MAX_TINY_PACKETS: Final = 8192
"""The number of bytes per read if packets have less than 50 bytes each: takes a millisecond."""
_LAST_BYTES: Final = 64 * 1024
"""What a far side may have received that has not acknowledged it: a window."""

_SO_MEMINFO: Final = (
    55  # asm-generic/socket.h; linux/sock_diag.h: the first is SK_MEMINFO_RMEM_ALLOC
)
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # socket(7), struct linger
_DELIVER_ON_CLOSE: Final = struct.pack("ii", 0, 0)

# struct tcp_info of linux/tcp.h: offsets of its counters, the states of net/tcp_states.h.
_TCP_INFO_LENGTH: Final = 216
_UNACKED_PACKETS: Final = 24
_BYTE_COUNTS: Final = struct.Struct("=128xQ8xI52xQQ")
"""tcpi_bytes_received, tcpi_notsent_bytes, tcpi_bytes_sent, tcpi_bytes_retrans."""
_FIN_RECEIVED: Final = (6, 8, 9, 11)  # TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING
_CLOSE: Final = 7


def prepare(sock: socket.socket) -> None:
    """Set what a TcpStream needs of its socket, before that is connected. What a listener accepts
    inherits all of it. Raises OSError."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # If this process is killed, the kernel resets its connections, so that the other end does not
    # take an incomplete transfer for a complete one. The same goes for connections that are closed
    # before a process has them as a stream: on their way to another process that dies, or may have
    # no more descriptors.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    # A peer may vanish without a word. The far end's own probes no longer notice it, because this
    # host answers them. How long it takes is the host's setting (tcp_keepalive_time).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    urgent.leave_in_stream(sock)


class TcpStream(Transport):
    """A connected TCP socket, which it owns."""

    can_interrupt = True

    def __init__(self, sock: socket.socket) -> None:
        """The socket was `prepare`d, or its listener was."""
        if sock.gettimeout() != 0:
            sock.setblocking(False)
        urgent.expect_on(sock)
        self.socket = sock
        self._is_closed = False
        self._has_said_end = False
        self._raised_reset = 0
        """The error of the reset that `raise_reset` has raised."""
        self._low_water = 1
        self._kept = bytearray()
        """Bytes that were read and not consumed."""
        self._stops_at_urgent = True
        self._final_bytes: tuple[int, int] | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def wake_at(self, low_water: int) -> None:
        """Become readable at `low_water` unread bytes; set it to 1 before another reader takes
        over."""
        if low_water != self._low_water:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
            self._low_water = low_water

    async def peek(self, beyond: int, limit: int) -> bytes:
        stuck_at = 0
        while True:
            if urgent.has_come and self._is_before_urgent():
                raise UrgentAhead(bytes(self._kept))
            try:
                data = self._peek(limit)
            except BlockingIOError:
                data = b""
            else:
                if len(data) > beyond or not data or len(data) == limit:
                    return data
                if len(data) == stuck_at:
                    raise UrgentAhead(data)
                if self.has_ended():
                    data = self._peek(limit)
                    if len(data) < min(limit, self.unread_count()):
                        raise UrgentAhead(data)
                    return data
            seen = len(data)
            del data  # free the copy: many tasks may be waiting for the rest of a message
            more = await self._wait_for_more_than(seen)
            stuck_at = seen if more else 0

    def peek_nowait(self, limit: int) -> bytes:
        if urgent.has_come and self._is_before_urgent():
            return bytes(self._kept[:limit])
        try:
            return self._peek(limit)
        except BlockingIOError:
            return b""

    def peek_available(self, limit: int) -> bytes | None:
        if urgent.has_come and self._is_before_urgent():
            raise UrgentAhead(bytes(self._kept))
        try:
            return self._peek(limit)
        except BlockingIOError:
            return None

    def _peek(self, limit: int) -> bytes:
        """The available bytes; empty at the end. Raises BlockingIOError if there are none yet."""
        # If more were asked for than is there, the kernel would continue while packets arrive, and
        # MSG_PEEK would start at the first byte for each of them: 70 ms for 10,000 bytes that
        # arrive one by one.
        there = self._count_in_kernel()
        if not there:
            if self._kept or not self.socket.recv(1, socket.MSG_PEEK):
                return bytes(self._kept[:limit])
            # A packet has come since: all of it counts, for a part would be sent on alone.
            there = self._count_in_kernel()
        memory = self._queued_memory() if there > _FEW_BYTES else 0
        there = min(limit, _at_once(there, memory))
        if not self._kept and (there <= _FEW_BYTES or memory <= _FEW_PACKETS_MEMORY):
            return self.socket.recv(there, socket.MSG_PEEK)
        try:
            if len(self._kept) < limit:
                self._kept += self.socket.recv(min(there, limit - len(self._kept)))
        except OSError:  # a reset is reported again when nothing is kept
            if not self._kept:
                raise
        return bytes(memoryview(self._kept)[:limit])

    def _queued_memory(self) -> int:
        """The memory of the kernel's packet queue: at least 640 bytes per packet (SO_MEMINFO)."""
        info = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4)
        return int(struct.unpack("=I", info)[0])

    @property
    def kernel_source(self) -> TcpStream | None:
        return None if self._kept else self

    @property
    def kernel_sink(self) -> TcpStream:
        return self

    def peek_urgent(self) -> bytes:
        return b"" if self._kept else self._peek_urgent_in_kernel()

    def _peek_urgent_in_kernel(self) -> bytes:
        if not urgent.is_next(self.socket):
            return b""
        try:
            return self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return b""

    def _is_before_urgent(self) -> bool:
        return self._stops_at_urgent and bool(self._peek_urgent_in_kernel())

    async def _wait_for_more_than(self, count: int) -> bool:
        """Wait until there may be more; True if there surely is, even if it cannot be peeked at."""
        count -= len(self._kept)
        self.wake_at(count + 1)
        await trio.lowlevel.wait_readable(self.socket)
        if not count:
            return False
        if self._count_in_kernel() > count:
            return True
        if not self.has_ended():
            # The kernel also wakes a reader when the receive buffer is full, even below the
            # low-water mark; it then enlarges the buffer.
            await trio.sleep(_FULL_BUFFER_PAUSE_S)
        return False

    def unread_count(self) -> int:
        return len(self._kept) + self._count_in_kernel()

    def _count_in_kernel(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, bytes(4)))[0])

    def has_ended(self) -> bool:
        return self._state in (*_FIN_RECEIVED, _CLOSE)

    @property
    def is_at_end(self) -> bool:
        # Not by reading: the kernel reports a reset only once.
        state = self._state
        if state not in _FIN_RECEIVED and (state != _CLOSE or self._holds_error()):
            return False
        return not self.unread_count()

    def discard(self, count: int) -> None:
        kept = min(count, len(self._kept))
        del self._kept[:kept]
        count -= kept
        while count:
            count -= len(self.socket.recv(count))

    def receive_nowait(self, buffer: memoryview) -> int | None:
        if self._kept:
            count = min(len(buffer), len(self._kept))
            buffer[:count] = self._kept[:count]
            del self._kept[:count]
            return count
        if urgent.has_come and self._is_before_urgent():
            return None
        try:
            count = self.socket.recv_into(buffer, min(len(buffer), _MAX_TINY_PACKETS))
        except BlockingIOError:
            return None
        if count == _MAX_TINY_PACKETS and len(buffer) > count:
            count += self._receive_more(buffer[count:])
        return count

    def _receive_more(self, buffer: memoryview) -> int:
        """Read what else is there. A reset is not looked for: it is reported only once."""
        there = self._count_in_kernel()
        if not there or (urgent.has_come and self._is_before_urgent()):
            return 0
        memory = self._queued_memory() if there > _FEW_BYTES else 0
        return self.socket.recv_into(buffer, min(len(buffer), _at_once(there, memory)))

    def wait_receivable(self) -> Coroutine[None, None, None]:
        """Not itself a coroutine, since that would be a step more of every wait."""
        if self._kept:
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - the caller awaits it
        if self._low_water != 1:
            self.wake_at(1)
        return trio.lowlevel.wait_readable(self.socket)  # noqa: ASYNC105 - as above

    def interrupt(self) -> None:
        trio.lowlevel.notify_closing(self.socket)

    def watched(
        self, call: Callable[[], None], *, for_end: bool = False, for_data: bool = False
    ) -> AbstractContextManager[None]:
        events = (resets.ENDED if for_end else 0) | (resets.READABLE if for_data else 0)
        return resets.Watched(self.socket.fileno(), call, events)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_gone(self) -> bool:
        if self.is_closed:
            return True
        return self._state == _CLOSE

    @property
    def _state(self) -> int:
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]

    def raise_reset(self) -> None:
        if code := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._raised_reset = code
        self.raise_if_reset()

    def raise_if_reset(self) -> None:
        if self._raised_reset:
            raise OSError(self._raised_reset, os.strerror(self._raised_reset))
        # The kernel reports a reset only once. But a connection that is gone, and that we have not
        # ended, must have been reset.
        if self.is_gone and not self._has_said_end and not self._holds_error():
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    def _holds_error(self) -> bool:
        poller = select.poll()
        poller.register(self.socket, 0)
        return any(events & select.POLLERR for _, events in poller.poll(0))

    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                await self.wait_sendable(fed_by)

    async def send_some(
        self, data: bytes, *, as_urgent: bool = False, fed_by: Transport | None = None
    ) -> int:
        """Like `Stream.send_some`; cancelling sends nothing."""
        while True:
            try:
                return self.socket.send(data, socket.MSG_OOB if as_urgent else 0)
            except BlockingIOError:
                await self.wait_sendable(fed_by)

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    async def wait_room(self) -> None:
        await trio.lowlevel.wait_writable(self.socket)

    @property
    def is_delivering(self) -> bool:
        if self.is_closed:
            return False
        # A connection that was reset still counts its unsent bytes, so its state is checked too.
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LENGTH)
        (unacked,) = struct.unpack_from("=I", info, _UNACKED_PACKETS)
        return info[0] != _CLOSE and unacked > 0

    def unsent_count(self) -> int:
        try:
            return 0 if self.is_gone else self._unacknowledged_count()
        except OSError:
            return 0

    @property
    def may_have_all(self) -> bool:
        if self.is_closed or not self._has_said_end:
            return False
        return self._unacknowledged_count() <= _LAST_BYTES

    def _unacknowledged_count(self) -> int:
        queued = fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", queued)[0])

    async def wait_end(self) -> None:
        self._stops_at_urgent = False
        await super().wait_end()
        self.raise_if_reset()

    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # it was reset meanwhile, which receiving will report
                raise
        else:
            self._has_said_end = True

    async def send_last(
        self, data: memoryview, *, ends_below: bool = False, fed_by: Transport | None = None
    ) -> None:
        with suppress(BlockingIOError):
            # The kernel keeps what does not fill a packet for the FIN behind it.
            data = data[self.socket.send(data, socket.MSG_MORE) :]
        await self.send_all(data, fed_by=fed_by)
        await self.send_eof(fed_by=fed_by)

    def abort(self) -> None:
        if not self.is_closed:
            self._final_bytes = self._count_bytes(was_reset=True)
            self._let_go()

    def close(self) -> None:
        if not self.is_closed:
            self._final_bytes = self._count_bytes()
            with suppress(OSError):  # it is reset then
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DELIVER_ON_CLOSE)
            self._let_go()

    def _let_go(self) -> None:
        self._is_closed = True
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()

    @property
    def wire_bytes(self) -> tuple[int, int]:
        # The kernel counts them anyway, so the byte path need not.
        return self._final_bytes or self._count_bytes()

    def _count_bytes(self, *, was_reset: bool = False) -> tuple[int, int]:
        """From TCP_INFO. The received count includes the FIN, which takes a sequence number; a
        socket in state CLOSE does not say whether it got there by a FIN or by a reset. 0 if the
        kernel does not tell."""
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LENGTH)
        except OSError:
            return 0, 0
        if len(info) < _TCP_INFO_LENGTH:
            return 0, 0
        received, waiting, sent, resent = _BYTE_COUNTS.unpack_from(info)
        fin_received = info[0] in _FIN_RECEIVED or (info[0] == _CLOSE and not was_reset)
        return max(0, received - fin_received), sent - resent + waiting


def _at_once(there: int, memory: int) -> int:
    """How many of the available bytes to ask for, whose packets take this memory."""
    return min(there, _MAX_TINY_PACKETS) if memory > there * _MEMORY_PER_BYTE else there
