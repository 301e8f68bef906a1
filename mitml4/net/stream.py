"""One side of a bridge: a byte stream that can be looked at before it is consumed.

Two kinds exist: `TcpStream` here, and `TlsStream` (tls/stream.py) over either of them. What the
layers need of both is small: look ahead, consume, send, and end the way the far side ended.

A TcpStream looks with MSG_PEEK, so that unread bytes stay in the kernel: OpenSSL can take over the
descriptor in the middle of a connection, and an opaque flow can be spliced. SO_RCVLOWAT makes the
kernel wake us for the byte after those that were seen, not again for those.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import termios
from abc import ABC, abstractmethod
from typing import Final

import trio

__all__ = ["Stream", "StreamTruncated", "TcpStream"]

_FULL_BUFFER_PAUSE_S: Final = 0.02

# struct tcp_info of linux/tcp.h: offsets of its counters, the states of net/tcp_states.h.
_TCP_INFO_LENGTH: Final = 216
_BYTES_RECEIVED: Final = 128
_NOTSENT_BYTES: Final = 144
_BYTES_SENT: Final = 200
_BYTES_RETRANS: Final = 208
_FIN_RECEIVED: Final = (6, 8, 9, 11)  # TIME_WAIT, CLOSE_WAIT, LAST_ACK, CLOSING
_CLOSE: Final = 7


class StreamTruncated(Exception):  # noqa: N818 - an end of the stream, not a fault of ours
    """The transport ended inside this stream: TCP's FIN without TLS's close_notify."""


class Stream(ABC):
    """A byte stream at one depth of one side.

    Errors: whatever receives or sends may raise OSError (ConnectionResetError for a reset) or
    StreamTruncated. Methods checkpoint only where they would block, so a loop over them needs a
    checkpoint of its own every so often. Cancelling a wait or a peek loses no byte; cancelling a
    `send_all` leaves the stream good for nothing but `abort`.
    """

    transport: Stream | None = None
    """What carries this stream, where that is a stream too."""

    @abstractmethod
    async def peek(self, beyond: int, limit: int) -> bytes:
        """The unread bytes, at most `limit`, once there are more than `beyond` of them.

        When the stream has ended there will never be more: `beyond` bytes or fewer come back.
        """

    @abstractmethod
    def peek_nowait(self, limit: int) -> bytes:
        """The unread bytes that are there, at most `limit`; none, also at the end."""

    @abstractmethod
    def discard(self, count: int) -> None:
        """Consume `count` bytes that `peek` has shown."""

    @abstractmethod
    def receive_nowait(self, buffer: memoryview) -> int | None:
        """Consume what is there into a buffer; 0 at the end of the stream, None if it is early."""

    @abstractmethod
    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` may have something to say."""

    @abstractmethod
    async def send_all(self, data: memoryview) -> None:
        """Send everything."""

    @abstractmethod
    async def send_end(self) -> None:
        """Say that nothing more comes: FIN, or close_notify. Receiving goes on."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once, with a reset on the wire."""

    @abstractmethod
    def close(self) -> None:
        """Close; what was sent still gets delivered."""

    async def wait_end(self) -> None:
        """Wait for the end of the stream, dropping what still comes."""
        buffer = memoryview(bytearray(4096))
        while True:
            match self.receive_nowait(buffer):
                case 0:
                    return
                case None:
                    await self.wait_receivable()
                case _:
                    await trio.lowlevel.checkpoint()


class TcpStream(Stream):
    """A connected TCP socket, which it owns."""

    def __init__(self, sock: socket.socket | trio.socket.SocketType) -> None:
        if not isinstance(sock, socket.socket):
            sock = socket.socket(fileno=sock.detach())
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self._low_water = 1
        self._final_bytes: tuple[int, int] | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def wake_at(self, low_water: int) -> None:
        """Be readable from `low_water` unread bytes on; 1 before something else reads from it."""
        if low_water != self._low_water:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, low_water)
            self._low_water = low_water

    async def peek(self, beyond: int, limit: int) -> bytes:
        while True:
            try:
                data = self.socket.recv(limit, socket.MSG_PEEK)
            except BlockingIOError:
                data = b""
            else:
                if len(data) > beyond or not data or len(data) == limit:
                    return data
                if self._has_ended():
                    return self.socket.recv(limit, socket.MSG_PEEK)
            await self._wait_for_more_than(len(data))

    def peek_nowait(self, limit: int) -> bytes:
        try:
            return self.socket.recv(limit, socket.MSG_PEEK)
        except BlockingIOError:
            return b""

    async def _wait_for_more_than(self, count: int) -> None:
        self.wake_at(count + 1)
        await trio.lowlevel.wait_readable(self.socket)
        if count and self._unread_count() <= count and not self._has_ended():
            # The kernel also wakes a reader whose receive buffer is full, though the low-water
            # mark is not reached; it grows the buffer meanwhile.
            await trio.sleep(_FULL_BUFFER_PAUSE_S)

    def _unread_count(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, bytes(4)))[0])

    def _has_ended(self) -> bool:
        poller = select.poll()
        poller.register(self.socket, select.POLLRDHUP)
        return bool(poller.poll(0))

    def discard(self, count: int) -> None:
        while count:
            count -= len(self.socket.recv(count))

    def receive_nowait(self, buffer: memoryview) -> int | None:
        try:
            return self.socket.recv_into(buffer)
        except BlockingIOError:
            return None

    async def wait_receivable(self) -> None:
        self.wake_at(1)
        await trio.lowlevel.wait_readable(self.socket)

    async def send_all(self, data: memoryview) -> None:
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                await self.wait_sendable()

    async def wait_sendable(self) -> None:
        await trio.lowlevel.wait_writable(self.socket)

    async def send_end(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # reset meanwhile: receiving will say so
                raise

    def abort(self) -> None:
        if self.socket.fileno() >= 0:
            self._final_bytes = self._count_bytes(was_reset=True)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def close(self) -> None:
        if self.socket.fileno() >= 0:
            self._final_bytes = self._final_bytes or self._count_bytes()
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    @property
    def wire_bytes(self) -> tuple[int, int]:
        """Payload bytes (received, sent) so far, or in all once closed.

        The kernel counts them anyway, so nothing on the byte path has to.
        """
        return self._final_bytes or self._count_bytes()

    def _count_bytes(self, *, was_reset: bool = False) -> tuple[int, int]:
        """From TCP_INFO. What was received includes the FIN, which takes a sequence number; a
        socket in state CLOSE does not say whether a FIN brought it there or a reset."""
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_LENGTH)
        if len(info) < _TCP_INFO_LENGTH:
            return 0, 0
        received, sent, resent = (
            struct.unpack_from("=Q", info, offset)[0]
            for offset in (_BYTES_RECEIVED, _BYTES_SENT, _BYTES_RETRANS)
        )
        (waiting,) = struct.unpack_from("=I", info, _NOTSENT_BYTES)
        fin_received = info[0] in _FIN_RECEIVED or (info[0] == _CLOSE and not was_reset)
        return max(0, received - fin_received), sent - resent + waiting
