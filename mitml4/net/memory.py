"""A connection in memory: two transports for layers to run on, without a socket or a real clock.

It behaves like a TCP connection: each direction has a window, an end follows the bytes that were
sent before it, a reset is raised after the bytes that arrived before it, and closing with unread
bytes sends a reset. It does not support splicing or urgent data.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.net.stream import StreamTruncated, Transport

__all__ = ["MemoryStream", "memory_pair"]

_WINDOW_BYTES: Final = 65536


@dataclass(slots=True, eq=False)
class _Watch:
    """What one end is watched for; see `Transport.watched`."""

    call: Callable[[], None]
    for_end: bool
    for_data: bool
    is_called: bool = False


class MemoryStream(Transport):
    """One end of a connection in memory; see `memory_pair`."""

    below: MemoryStream | None = None
    can_interrupt = True

    def __init__(self, window: int, changed: trio.lowlevel.ParkingLot) -> None:
        self.far: MemoryStream
        self._is_closed = False
        self._window = window
        self._unread = bytearray()
        self._ended = False
        """The far side sends nothing more."""
        self._sent_eof = False
        self.was_reset = False
        """Whether a reset has come."""
        self._has_raised_reset = False
        """Whether it was raised: later reads find an end."""
        self._is_reset_known = False
        """Whether `raise_reset` has raised it."""
        self._is_interrupted = False
        self._received = self._sent = 0
        self._changed = changed
        """All waits of both ends wait for it."""
        self._watches: list[_Watch] = []

    def _wake(self) -> None:
        """Something has changed."""
        self._changed.unpark_all()
        for end in (self, self.far):
            for watch in list(end._watches):
                end._tell(watch)

    def _tell(self, watch: _Watch) -> None:
        """Call who watches, if that has happened."""
        ended = watch.for_end and self._ended
        readable = watch.for_data and (self._unread or self.has_ended())
        if not watch.is_called and (self.is_gone or ended or readable):
            watch.is_called = True
            watch.call()

    # Receiving

    @property
    def transport(self) -> Transport:
        return self.below.transport if self.below else self

    async def peek(self, beyond: int, limit: int) -> bytes:
        while True:
            data = self._look(limit)
            if len(data) > beyond or len(data) == limit:
                return data
            if self.has_ended():
                self._raise_truncated()
                return data
            await self._changed.park()

    def peek_nowait(self, limit: int) -> bytes:
        return bytes(self._unread[:limit])

    def peek_available(self, limit: int) -> bytes | None:
        data = self._look(limit)
        if not data and self.has_ended():
            self._raise_truncated()
        return data if data or self.has_ended() else None

    def _look(self, limit: int) -> bytes:
        self._check_open()
        if not self._unread:
            self._raise_reset_once()
        return bytes(self._unread[:limit])

    def discard(self, count: int) -> None:
        del self._unread[:count]
        self._wake()

    def receive_nowait(self, buffer: memoryview) -> int | None:
        data = self._look(len(buffer))
        buffer[: len(data)] = data
        self.discard(len(data))
        if not data and self.has_ended():
            self._raise_truncated()
        return len(data) if data or self.has_ended() else None

    async def wait_receivable(self) -> None:
        self._is_interrupted = False
        await trio.lowlevel.checkpoint()
        self._check_open()
        while not (self._unread or self.has_ended()):
            if self._is_interrupted:
                raise trio.ClosedResourceError
            await self._changed.park()
            self._check_open()

    def interrupt(self) -> None:
        self._is_interrupted = True
        self._changed.unpark_all()

    # Sending

    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        while data:
            self._check_sendable()
            room = self._room()
            if room:
                self._deliver(bytes(data[:room]))
                data = data[room:]
            else:
                await self.wait_sendable(fed_by)

    async def send_some(
        self, data: bytes, *, as_urgent: bool = False, fed_by: Transport | None = None
    ) -> int:
        """Like `Stream.send_some`; cancelling sends nothing."""
        while not (sent := self.send_nowait(data)):
            await self.wait_sendable(fed_by)
        return sent

    def send_nowait(self, data: bytes | memoryview) -> int:
        self._check_sendable()
        if room := max(0, self._room()):
            self._deliver(bytes(data[:room]))
        return min(room, len(data))

    def _check_sendable(self) -> None:
        self._check_open()
        self._raise_reset_once()
        if self._sent_eof or self.was_reset:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _deliver(self, data: bytes) -> None:
        self._sent += len(data)
        if self.far.is_closed:
            self._receive_reset()
            return
        self.far._unread += data
        self.far._received += len(data)
        self._wake()

    def _room(self) -> int:
        """After the far side has closed, everything is accepted, and answered with a reset."""
        return self._window if self.far.is_closed else self._window - len(self.far._unread)

    async def wait_room(self) -> None:
        while not (self._room() or self.was_reset):
            await self._changed.park()
            self._check_open()

    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        self._check_open()
        if not self._sent_eof:
            self._sent_eof = True
            self._say_end()

    def _say_end(self) -> None:
        self.far._ended = True
        self._wake()

    # Ends

    def close(self) -> None:
        if self._unread:
            self.abort()
        elif not self.is_closed:
            self._is_closed = True
            self._say_end()
        if self.below:
            self.below.close()

    def abort(self) -> None:
        if self.below:
            self.below.abort()
        if not self.is_closed:
            self._is_closed = True
            self._unread.clear()
            self.far._receive_reset()

    def _receive_reset(self) -> None:
        if not (self.is_closed or self.is_gone):
            self.was_reset = True
        self._wake()

    def _check_open(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError

    def _raise_reset_once(self) -> None:
        if self.was_reset and not self._has_raised_reset:
            self._has_raised_reset = True
            raise _reset()

    def raise_reset(self) -> None:
        self._is_reset_known |= self.was_reset and not self._has_raised_reset
        self._has_raised_reset = self.was_reset
        self.raise_if_reset()

    def raise_if_reset(self) -> None:
        if self._is_reset_known or (self._has_raised_reset and not self._sent_eof):
            raise _reset()

    async def wait_end(self) -> None:
        await super().wait_end()
        self.raise_if_reset()

    @contextmanager
    def watched(
        self, call: Callable[[], None], *, for_end: bool = False, for_data: bool = False
    ) -> Iterator[None]:
        watch = _Watch(call, for_end, for_data)
        self._watches.append(watch)
        self._tell(watch)
        try:
            yield
        finally:
            self._watches.remove(watch)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_gone(self) -> bool:
        return self.is_closed or self.was_reset or (self._ended and self._sent_eof)

    @property
    def is_at_end(self) -> bool:
        return self._ended and not (self._unread or self.was_reset)

    def has_ended(self) -> bool:
        return self._ended or self.was_reset or (self.below is not None and self.below.has_ended())

    def _raise_truncated(self) -> None:
        """The stream below has ended without an end of this one."""
        if self.below and not (self._ended or self.was_reset):
            raise StreamTruncated("what carries it has ended")

    # What a kernel counts

    @property
    def is_delivering(self) -> bool:
        return False  # sent bytes are at the far end at once

    def unread_count(self) -> int:
        return len(self._unread)

    def unsent_count(self) -> int:
        return 0

    @property
    def may_have_all(self) -> bool:
        return self._sent_eof and not self.is_closed

    @property
    def wire_bytes(self) -> tuple[int, int]:
        return self._received, self._sent


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


def memory_pair(
    window: int = _WINDOW_BYTES, *, levels: int = 0
) -> tuple[MemoryStream, MemoryStream]:
    """The two ends of a new connection; `window`: the number of unread bytes that each end
    accepts. `levels`: so many other ends it has below, as TLS has close_notify and the FIN."""
    return _pair(window, trio.lowlevel.ParkingLot(), levels)


def _pair(
    window: int, changed: trio.lowlevel.ParkingLot, levels: int
) -> tuple[MemoryStream, MemoryStream]:
    one, other = MemoryStream(window, changed), MemoryStream(window, changed)
    one.far, other.far = other, one
    if levels:
        one.below, other.below = _pair(window, changed, levels - 1)
    return one, other
