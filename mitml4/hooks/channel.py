"""One end of the socket between a session and the process of a script."""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import Final

import trio

from mitml4.hooks.wire import LENGTHS, Frame, lengths

__all__ = ["Channel"]

_READ: Final = 1 << 14
_MAX_READ: Final = 1 << 20


class Channel:
    """Frames in both directions.

    A frame is sent at once, without a task switch, and a read takes what has come: a hook that is
    asked about each of many small messages costs little beside its own work.
    """

    def __init__(self, sock: socket.socket) -> None:
        """The socket is closed by who has opened it."""
        self._socket = sock
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._unsent: deque[memoryview] = deque()
        self._has_unsent = trio.Event()
        self._lock = trio.Lock()
        self._received = bytearray()

    def send(self, frame: Frame) -> None:
        """Send a frame. What the socket does not take at once waits for `flush`. Raises OSError."""
        rest = memoryview(frame.encode())
        if not self._unsent:
            with suppress(BlockingIOError):
                rest = rest[self._socket.send(rest) :]
        if rest:
            self._unsent.append(rest)
            self._has_unsent.set()

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    async def flush(self) -> None:
        """Send what waits. Raises trio.BrokenResourceError, trio.ClosedResourceError."""
        async with self._lock:
            while self._unsent:
                await self._stream.send_all(self._unsent[0])
                self._unsent.popleft()
            self._has_unsent = trio.Event()

    async def write(self) -> None:
        """Send what waits, until cancelled. Raises as `flush` does."""
        while True:
            await self._has_unsent.wait()
            await self.flush()

    async def read(self, max_body: int) -> Frame | None:
        """The next frame; None at the end. Raises ValueError, trio.BrokenResourceError,
        trio.ClosedResourceError."""
        if not await self._wait_for(LENGTHS.size):
            return None
        head, body = lengths(bytes(self._received[: LENGTHS.size]), max_body)
        if not await self._wait_for(LENGTHS.size + head + body):
            return None
        del self._received[: LENGTHS.size]
        return Frame.decode(self._take(head), self._take(body))

    async def _wait_for(self, size: int) -> bool:
        """Whether so much has come."""
        while (missing := size - len(self._received)) > 0:
            piece = await self._stream.receive_some(min(max(missing, _READ), _MAX_READ))
            if not piece:
                return False
            self._received += piece
        return True

    def _take(self, size: int) -> bytes:
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken
