"""The byte streams that layers work on: they can be looked at before they are consumed.

A `Stream` is what one side of a bridge is at one depth. A `Transport` is one that nothing carries:
the connection of a side, over which the other streams of that side are stacked (`below`). Real
flows have `TcpStream` (net/tcp.py) and `TlsStream` (tls/stream.py) over it; tests have a pair in
memory (lab/memory.py), and hold all of them to one suite.

A stream says what it can: its methods and properties for splicing, for urgent data and for an
OpenSSL that reads the socket itself are here, and say no. A layer asks, and knows no class.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Final, NoReturn, Protocol

import trio

__all__ = ["KernelSocket", "Stream", "StreamTruncated", "Transport", "UrgentAhead"]

_DRAIN_TIMEOUT_S: Final = 2.0
"""How long the far side may take for room, when nothing will follow what fills it."""
_POLL_INTERVAL_S: Final = 0.02


class StreamTruncated(Exception):  # noqa: N818 - an end of the stream, not a fault of ours
    """The transport ended inside this stream: TCP's FIN without TLS's close_notify."""


class UrgentAhead(Exception):  # noqa: N818 - nothing is wrong
    """No read goes further: what comes after these bytes is urgent, and has to be moved."""

    def __init__(self, before: bytes) -> None:
        super().__init__(before)
        self.before = before


class KernelSocket(Protocol):
    """A socket that others read and write by its descriptor: splice(2), and OpenSSL."""

    socket: socket.socket

    def fileno(self) -> int: ...

    def unread_count(self) -> int: ...

    async def wait_receivable(self) -> None: ...

    async def wait_sendable(self, fed_by: Transport | None = None) -> None: ...


class Stream(ABC):
    """A byte stream at one depth of one side.

    Errors: whatever receives or sends may raise OSError (ConnectionResetError for a reset) or
    StreamTruncated. Methods checkpoint only where they would block, so a loop over them needs a
    checkpoint of its own every so often. Cancelling a wait or a peek loses no byte; after a
    cancelled `send_all`, only `abort` is left.

    What sends may wait for room. `fed_by` is then the transport that the bytes come from: once it
    is reset, and the far side takes nothing more, the wait ends in its error.
    """

    below: Stream | None = None
    """The stream that carries this one; None for a transport."""

    @abstractmethod
    async def peek(self, beyond: int, limit: int) -> bytes:
        """The unread bytes, at most `limit`, once there are more than `beyond` of them.

        When the stream has ended there will never be more: `beyond` bytes or fewer come back.
        Raises UrgentAhead when urgent data comes first.
        """

    @abstractmethod
    def peek_nowait(self, limit: int) -> bytes:
        """The unread bytes that are there, at most `limit`; none, also at the end."""

    @abstractmethod
    def discard(self, count: int) -> None:
        """Consume `count` bytes that `peek` has shown."""

    @abstractmethod
    def receive_nowait(self, buffer: memoryview) -> int | None:
        """Consume what is there into a buffer; 0 at the end of the stream, None if there is
        nothing yet, or if urgent data comes next."""

    @abstractmethod
    async def wait_receivable(self) -> None:
        """Wait until `receive_nowait` may return something else than None."""

    @abstractmethod
    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        """Send everything."""

    @abstractmethod
    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        """Send the end of the stream: FIN, or close_notify. Receiving goes on."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once, with a reset on the wire."""

    @abstractmethod
    def close(self) -> None:
        """Close; what was sent still gets delivered."""

    @property
    def transport(self) -> Transport:
        """The connection at the bottom, which carries all that is stacked on it."""
        stream: Stream = self
        while stream.below:
            stream = stream.below
        assert isinstance(stream, Transport)
        return stream

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

    @property
    def kernel_source(self) -> KernelSocket | None:
        """The socket whose next bytes are this stream's, if all that is unread is in the kernel."""
        return None

    @property
    def kernel_sink(self) -> KernelSocket | None:
        """The socket that what this stream is sent can be written to as it is."""
        return None

    def peek_urgent(self) -> bytes:
        """The next byte, if it is there and is urgent data."""
        return b""

    async def send_some(
        self, data: bytes, *, as_urgent: bool = False, fed_by: Transport | None = None
    ) -> int:
        """Send a part, once there is room, and return its size; `as_urgent`: its last byte is
        urgent data, where the stream has such."""
        await self.send_all(memoryview(data), fed_by=fed_by)
        return len(data)


class Transport(Stream):
    """The connection of one side."""

    @abstractmethod
    def until_reset(self) -> AbstractContextManager[trio.CancelScope]:
        """What is inside is cancelled once the connection is reset, or has ended both ways."""

    @abstractmethod
    def raise_reset(self) -> None:
        """Raises OSError if it was reset."""

    @abstractmethod
    def raise_if_reset(self) -> None:
        """Raises OSError if it was reset and that has been raised before: later reads find an
        end."""

    @property
    @abstractmethod
    def is_gone(self) -> bool:
        """Whether it was reset, or has ended both ways; what came before may still be unread."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether its end or its reset has come; bytes from before may still be unread."""

    @property
    @abstractmethod
    def is_delivering(self) -> bool:
        """Whether the far side has yet to acknowledge something, and takes it.

        When nothing is on its way though something waits, the far side's window is closed: it has
        all that it would have had without us.
        """

    @abstractmethod
    def unread_count(self) -> int:
        """Bytes that have come and are not consumed."""

    @abstractmethod
    def unsent_count(self) -> int:
        """Bytes that the far side has not acknowledged; none once the connection is reset."""

    @property
    @abstractmethod
    def wire_bytes(self) -> tuple[int, int]:
        """Payload bytes (received, sent) so far, or in all once closed."""

    @abstractmethod
    async def wait_room(self) -> None:
        """Wait until something can be sent."""

    async def wait_sendable(self, fed_by: Transport | None = None) -> None:
        """Wait for room. Raises OSError if `fed_by` was reset, and there will be none."""
        if fed_by is None:
            await self.wait_room()
            return
        with fed_by.until_reset() as waiting:
            await self.wait_room()
        if waiting.cancelled_caught and not await self._makes_room():
            fed_by.raise_reset()
            await self.wait_room()  # it has ended both ways

    async def _makes_room(self) -> bool:
        """Wait for room while the far side takes anything, but not for long."""
        with trio.move_on_after(_DRAIN_TIMEOUT_S):
            while self.is_delivering:
                with trio.move_on_after(_POLL_INTERVAL_S):
                    await self.wait_room()
                    return True
        return False

    async def wait_reset(self) -> NoReturn:
        """Wait until it is reset, also if the end of what it sends has been seen long ago.

        What came before is to be read first, if it is of interest. Raises OSError.
        """
        with self.until_reset():
            await trio.sleep_forever()
        self.raise_reset()
        await trio.sleep_forever()  # it has ended both ways
