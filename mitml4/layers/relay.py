"""Moving bytes that nobody needs to look at, as fast as the two streams allow.

Between two sockets a long run goes through the kernel (splice); otherwise it goes through a buffer
that is lent for the length of a burst. A flow that is idle holds neither. Buffers and pipes are the
session's, and so is their number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from mitml4.net.splice import PipePool, splice_burst
from mitml4.net.stream import Stream

__all__ = ["Relay", "Tap"]

_BUFFER_BYTES: Final = 128 * 1024
_IDLE_BUFFERS: Final = 64
_BURST_ROUNDS: Final = 4
"""So many buffers may pass before other flows get their turn."""

Tap: TypeAlias = Callable[[bytes], Awaitable[object]]


@dataclass(slots=True)
class Relay:
    """Lends buffers and pipes to the flows of a session."""

    pipes: PipePool = field(default_factory=PipePool)
    _buffers: list[memoryview] = field(default_factory=list)

    async def splice(self, source: Stream, sink: Stream, left: int | None) -> int | None:
        """A burst inside the kernel, where the streams can, and there is a pipe; see `copy`."""
        out_of, into = source.kernel_source, sink.kernel_sink
        if out_of and into:
            with self.pipes.lend() as pipe:
                if pipe:
                    return await splice_burst(out_of, into, pipe, left, fed_by=source.transport)
        return await self.copy(source, sink, left)

    async def copy(
        self, source: Stream, sink: Stream, left: int | None, tap: Tap | None = None
    ) -> int | None:
        """A burst through a buffer, at most `left` bytes (None: no limit).

        Returns the bytes moved, 0 at the end of the source, None when there is nothing yet. A tap
        is shown a copy of every chunk before it moves: once it has, the answer to it may come.
        """
        moved = 0
        with self._buffer() as buffer:
            for _ in range(_BURST_ROUNDS):
                room = buffer if left is None else buffer[: left - moved]
                if not room:
                    break
                count = source.receive_nowait(room)
                if not count:
                    return moved or count
                if tap:
                    await tap(bytes(buffer[:count]))
                await sink.send_all(buffer[:count], fed_by=source.transport)
                moved += count
                if count < len(room):
                    break
        return moved

    @contextmanager
    def _buffer(self) -> Iterator[memoryview]:
        buffer = self._buffers.pop() if self._buffers else memoryview(bytearray(_BUFFER_BYTES))
        try:
            yield buffer
        finally:
            if len(self._buffers) < _IDLE_BUFFERS:
                self._buffers.append(buffer)
