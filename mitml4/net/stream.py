"""The byte streams that layers work on; they can be peeked at before bytes are consumed.

A `Stream` is one side of a connection at one depth. A `Transport` is the lowest stream of a side,
its connection; the other streams of that side are stacked on it (`below`). Real flows have a
`TcpStream` (net/tcp.py) and `OpenedStream`s (tls/opened_stream.py) over it. Tests have an in-memory
pair (net/memory.py). One test suite covers all of them.

A stream has methods and properties for its capabilities: splicing, urgent data, and an OpenSSL that
reads the socket directly. The defaults here say that it has none. Layers check these instead of the
class.
"""

from __future__ import annotations

import socket
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, NoReturn, Protocol

import trio

from mitml4.net import urgent

__all__ = ["KernelSocket", "Stream", "StreamTruncated", "Transport", "UrgentAhead"]

_DRAIN_TIMEOUT_S: Final = 2.0
"""How long to wait for room at the far side when the source has no more data."""
_POLL_INTERVAL_S: Final = 0.02


class StreamTruncated(Exception):  # noqa: N818 - an end of the stream, not a fault of ours
    """The transport ended inside this stream: TCP's FIN without TLS's close_notify."""


class UrgentAhead(Exception):  # noqa: N818 - nothing is wrong
    """Peeking cannot continue: the bytes after these are urgent data, and have to be forwarded
    first."""

    def __init__(self, before: bytes) -> None:
        super().__init__(before)
        self.before = before


class KernelSocket(Protocol):
    """A socket that is read and written through its descriptor: by splice(2), and by OpenSSL."""

    socket: socket.socket

    def fileno(self) -> int: ...

    def unread_count(self) -> int: ...

    async def wait_receivable(self) -> None: ...

    async def wait_sendable(self, fed_by: Transport | None = None) -> None: ...


class Stream:
    """A byte stream at one depth of one side. mypy checks that its subclasses have all methods: of
    an ABC, `isinstance` would be answered in Python.

    Errors: methods that receive or send may raise OSError (ConnectionResetError for a reset) or
    StreamTruncated. Methods checkpoint only if they block, so a loop over them needs an additional
    checkpoint every so often. Cancelling a wait or a peek loses no byte; after a cancelled
    `send_all`, only `abort` may be called.

    Methods that send may wait for room. `fed_by` is the transport from which the bytes come: if it
    is reset, and the far side accepts no more, the wait ends with its error.
    """

    below: Stream | None = None
    """The stream that carries this one; None for a transport."""
    has_last: bool = False
    """Whether its own end is known; `ends_behind` tells where it is."""
    can_interrupt: bool = False
    """Whether `wait_receivable` waits once at most, and `interrupt` ends that."""

    @abstractmethod
    async def peek(self, beyond: int, limit: int) -> bytes:
        """The unread bytes, at most `limit`, once there are more than `beyond` of them.

        At the end of the stream, `beyond` bytes or fewer are returned. Raises UrgentAhead if urgent
        data comes first.
        """

    @abstractmethod
    def peek_nowait(self, limit: int) -> bytes:
        """The available unread bytes, at most `limit`; empty if there are none, and at the end."""

    @abstractmethod
    def peek_available(self, limit: int) -> bytes | None:
        """The available unread bytes, at most `limit`; None if there are none yet, empty at the end
        of the stream. Raises UrgentAhead if urgent data comes first."""

    def ends_behind(self, count: int) -> bool:
        """Whether it is known that nothing but its own end comes behind the next `count` bytes."""
        return False

    @abstractmethod
    def discard(self, count: int) -> None:
        """Consume `count` bytes that `peek` has shown."""

    @abstractmethod
    def receive_nowait(self, buffer: memoryview) -> int | None:
        """Read available bytes into a buffer; 0 at the end of the stream, None if there is nothing
        yet, or if urgent data comes next."""

    @abstractmethod
    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` may return something else than None. Always checkpoints."""

    def interrupt(self) -> None:
        """Raise trio.ClosedResourceError in a task that waits in `wait_receivable`, as if the
        stream was closed, if `can_interrupt`. No other task may wait for this stream."""
        raise NotImplementedError

    @abstractmethod
    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        """Send everything."""

    @abstractmethod
    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        """Send the end of the stream: FIN, or close_notify. Receiving continues."""

    async def send_last(
        self, data: memoryview, *, ends_below: bool = False, fed_by: Transport | None = None
    ) -> None:
        """Send everything, and the end of the stream, in one packet if that is possible;
        `ends_below`: and the end of the stream below."""
        await self.send_all(data, fed_by=fed_by)
        await self.send_eof(fed_by=fed_by)
        if ends_below and self.below:
            await self.below.send_eof(fed_by=fed_by)

    async def send_alert(self, alert: int, *, fed_by: Transport | None = None) -> None:
        """Send a fatal alert of TLS (RFC 8446 §6), which ends the sending, if this is TLS and can
        do so."""
        return

    @abstractmethod
    def abort(self) -> None:
        """Close at once; the far side gets a reset."""

    @abstractmethod
    def close(self) -> None:
        """Close; bytes that were sent are still delivered."""

    @property
    def transport(self) -> Transport:
        """The connection on which this stream is stacked."""
        assert self.below
        return self.below.transport

    async def wait_end(self) -> None:
        """Wait for the end of the stream, and drop the bytes before it."""
        buffer = memoryview(bytearray(4096))
        while True:
            match self.receive_nowait(buffer):
                case 0:
                    return
                case None:
                    await self.wait_receivable()
                case _:
                    await trio.lowlevel.checkpoint()

    @property
    def kernel_source(self) -> KernelSocket | None:
        """The socket whose next bytes are this stream's, if all unread bytes are in the kernel."""
        return None

    @property
    def kernel_sink(self) -> KernelSocket | None:
        """The socket to which this stream's bytes can be written unchanged."""
        return None

    def peek_urgent(self) -> bytes:
        """The next byte, if it is available and urgent."""
        return b""

    def receive_urgent(self, buffer: memoryview) -> int | None:
        """Read the next byte if it is urgent, where that means nothing, as in TLS: what
        `receive_nowait` stops at, and nothing waits for. None: it is not."""
        if not urgent.has_come:
            return None
        byte = self.peek_urgent()
        buffer[: len(byte)] = byte
        self.discard(len(byte))
        return len(byte) or None

    async def send_some(
        self, data: bytes, *, as_urgent: bool = False, fed_by: Transport | None = None
    ) -> int:
        """Send a part when there is room, and return its size; `as_urgent`: its last byte is urgent
        data, if the stream supports that."""
        await self.send_all(memoryview(data), fed_by=fed_by)
        return len(data)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send a part if there is room, and return its size. Not while another task is sending.

        A stream may keep a part that it has no room for, and send it before other data. One that
        cannot send without waiting sends nothing.
        """
        return 0


class Transport(Stream):
    """The connection of one side."""

    @property
    def transport(self) -> Transport:
        return self

    @abstractmethod
    def watched(
        self, call: Callable[[], None], *, for_end: bool = False, for_data: bool = False
    ) -> AbstractContextManager[None]:
        """While the block runs, `call` is called once: when the connection is reset, or has ended
        both ways; `for_end`: also when the far side sends nothing more; `for_data`: also when there
        is something to read. It runs in another task, and must neither wait nor raise."""

    @abstractmethod
    def raise_reset(self) -> None:
        """Raises OSError if it was reset."""

    @abstractmethod
    def raise_if_reset(self) -> None:
        """Raises OSError if it was reset and that has been raised before: later reads find an
        end."""

    @property
    @abstractmethod
    def is_closed(self) -> bool:
        """Whether `close` or `abort` was called."""

    @property
    @abstractmethod
    def is_gone(self) -> bool:
        """Whether it was reset, or has ended both ways; earlier bytes may still be unread."""

    @property
    @abstractmethod
    def is_at_end(self) -> bool:
        """Whether its end has arrived, and nothing before it is unread. Raises nothing."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether its end or its reset has arrived; earlier bytes may still be unread."""

    @property
    @abstractmethod
    def is_delivering(self) -> bool:
        """Whether the far side accepts bytes that it has not acknowledged yet.

        If bytes wait although none is in flight, the far side's window is closed: it has received
        everything that it would have received without us.
        """

    @abstractmethod
    def unread_count(self) -> int:
        """Bytes that have arrived and are not consumed."""

    @abstractmethod
    def unsent_count(self) -> int:
        """Bytes that the far side has not acknowledged; 0 after a reset."""

    @property
    @abstractmethod
    def may_have_all(self) -> bool:
        """Whether the far side was sent the end of the stream, and has acknowledged all before it
        but 64 KiB at most. Also known after a reset; False once it is closed here."""

    @property
    @abstractmethod
    def wire_bytes(self) -> tuple[int, int]:
        """Payload bytes (received, sent) so far; final after closing."""

    @abstractmethod
    async def wait_room(self) -> None:
        """Wait until something can be sent."""

    async def wait_sendable(self, fed_by: Transport | None = None) -> None:
        """Wait for room. Raises OSError if `fed_by` was reset, and no room is expected."""
        if fed_by is None:
            await self.wait_room()
            return
        with trio.CancelScope() as waiting, fed_by.watched(waiting.cancel):
            await self.wait_room()
        if waiting.cancelled_caught and not await self._makes_room():
            fed_by.raise_reset()
            await self.wait_room()  # it has ended both ways

    async def _makes_room(self) -> bool:
        """Wait for room as long as the far side accepts bytes, but only for a limited time."""
        with trio.move_on_after(_DRAIN_TIMEOUT_S):
            while self.is_delivering:
                with trio.move_on_after(_POLL_INTERVAL_S):
                    await self.wait_room()
                    return True
        return False

    async def wait_reset(self) -> NoReturn:
        """Wait until it is reset, even if its end has been seen before.

        Read earlier bytes first, if they are needed. Raises OSError.
        """
        is_gone = trio.Event()
        with self.watched(is_gone.set):
            await is_gone.wait()
        self.raise_reset()
        await trio.sleep_forever()  # it has ended both ways
