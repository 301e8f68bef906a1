"""Move bytes between sockets inside the kernel (splice(2)), for opaque flows.

A transfer needs a pipe between the two sockets. A pipe is lent for one burst, so idle flows hold
none, and is kept for the next one. If there is no pipe (descriptors, the user's pipe quota), the
caller moves the bytes itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.net.stream import KernelSocket, Transport

__all__ = ["Pipe", "PipePool", "splice_burst"]

_PIPE_BYTES: Final = 1 << 20
_FLAGS: Final = 0x01 | 0x02  # SPLICE_F_MOVE | SPLICE_F_NONBLOCK, fcntl.h
_F_SETPIPE_SZ: Final = 1031  # fcntl.F_SETPIPE_SZ
_BURST_BYTES: Final = 1 << 20


@dataclass(slots=True)
class Pipe:
    """An empty pipe."""

    read_end: int
    write_end: int

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


@dataclass(slots=True)
class PipePool:
    """Pipes, lent and returned empty. At most `most` are open, at most `most_idle` of them
    unused."""

    most: int = 512
    most_idle: int = 64
    _open_count: int = 0
    _idle: list[Pipe] = field(default_factory=list)

    @contextmanager
    def lend(self) -> Iterator[Pipe | None]:
        """A pipe, or None if the system has none. A pipe with an error is not kept."""
        pipe = self._idle.pop() if self._idle else self._open()
        try:
            yield pipe
        except BaseException:
            if pipe:
                self._close(pipe)  # may still hold bytes
            raise
        if pipe and len(self._idle) < self.most_idle:
            self._idle.append(pipe)
        elif pipe:
            self._close(pipe)

    def _open(self) -> Pipe | None:
        if self._open_count >= self.most:
            return None
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return None
        self._open_count += 1
        with suppress(OSError):  # above the user's quota: the default of 64 KiB works too
            fcntl.fcntl(pipe.write_end, _F_SETPIPE_SZ, _PIPE_BYTES)
        return pipe

    def _close(self, pipe: Pipe) -> None:
        pipe.close()
        self._open_count -= 1

    def close(self) -> None:
        while self._idle:
            self._close(self._idle.pop())


async def splice_burst(
    source: KernelSocket,
    sink: KernelSocket,
    pipe: Pipe,
    most: int | None,
    *,
    fed_by: Transport | None = None,
) -> int | None:
    """Move available bytes, up to `most` (None: no limit), until the source would block.

    Returns the number of bytes; 0 at the end of the source, None if nothing was available. Limited
    to 1 MiB, so that one flow does not occupy the event loop. Raises OSError.
    """
    moved = 0
    limit = _BURST_BYTES if most is None else min(most, _BURST_BYTES)
    while moved < limit:
        try:
            filled = os.splice(
                source.fileno(), pipe.write_end, min(limit - moved, _PIPE_BYTES), flags=_FLAGS
            )
        except BlockingIOError:
            return moved or None
        if not filled:
            # Before urgent data, splice says what it says at the end, once a FIN has come as well.
            return (moved or None) if source.unread_count() else moved
        moved += filled
        await _drain(pipe, sink, filled, fed_by)
    return moved


async def _drain(pipe: Pipe, sink: KernelSocket, count: int, fed_by: Transport | None) -> None:
    while count:
        try:
            count -= os.splice(pipe.read_end, sink.fileno(), count, flags=_FLAGS)
        except BlockingIOError:
            await sink.wait_sendable(fed_by)
