"""Moving bytes that no layer needs to see, as fast as the two streams allow.

Between two sockets, a long run goes through the kernel (splice). Otherwise it goes through a buffer
that is lent for one burst. An idle flow holds neither. Buffers and pipes belong to the session,
which limits their number. It also limits how many lanes end at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.net.splice import PipePool, splice_burst
from mitml4.net.stream import Stream

__all__ = ["Relay"]

_BUFFER_BYTES: Final = 128 * 1024
_IDLE_BUFFERS: Final = 64
_BURST_ROUNDS: Final = 4
"""After so many buffers, other flows run."""
_ENDS_AT_ONCE: Final = 8
"""So many lanes end before other tasks run. To end one takes about a tenth of a millisecond, and a
client may drop thousands of connections at once."""


@dataclass(slots=True)
class Relay:
    """Lends buffers and pipes to the flows of a session."""

    pipes: PipePool = field(default_factory=PipePool)
    _endings: trio.Semaphore = field(default_factory=lambda: trio.Semaphore(_ENDS_AT_ONCE))
    _buffers: list[memoryview] = field(default_factory=list)

    async def splice(self, source: Stream, sink: Stream, left: int | None) -> int | None:
        """Move a burst inside the kernel, if both streams can and there is a pipe; see `copy`."""
        out_of, into = source.kernel_source, sink.kernel_sink
        if out_of and into:
            with self.pipes.lend() as pipe:
                if pipe:
                    return await splice_burst(out_of, into, pipe, left, fed_by=source.transport)
        return await self.copy(source, sink, left)

    async def copy(
        self,
        source: Stream,
        sink: Stream,
        left: int | None,
        on_moved: Callable[[memoryview], None] | None = None,
    ) -> int | None:
        """Move a burst through a buffer, at most `left` bytes (None: no limit). `on_moved` is given
        each piece before it is sent.

        Returns the bytes moved, 0 at the end of the source, None if there is nothing yet.
        """
        moved = 0
        buffer = self.borrow()
        try:
            for _ in range(_BURST_ROUNDS):
                room = buffer if left is None else buffer[: left - moved]
                if not room:
                    break
                count = source.receive_nowait(room)
                if not count:
                    return moved or count
                if on_moved:
                    on_moved(buffer[:count])
                await sink.send_all(buffer[:count], fed_by=source.transport)
                moved += count
                if count < len(room):
                    break
        finally:
            self.give_back(buffer)
        return moved

    async def take_turn_to_end(self) -> None:
        """Let other tasks run; if many lanes end at once, wait for those before. Checkpoints."""
        await self._endings.acquire()
        self._endings.release()

    def borrow(self) -> memoryview:
        """A buffer for the length of a burst, to be given back."""
        return self._buffers.pop() if self._buffers else memoryview(bytearray(_BUFFER_BYTES))

    def give_back(self, buffer: memoryview) -> None:
        if len(self._buffers) < _IDLE_BUFFERS:
            self._buffers.append(buffer)
