"""Reading from a stream into a buffer, and sending at a rate."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from mitml4.net.stream import Stream, StreamTruncated

__all__ = ["Reader", "end_below", "pass_end", "relay", "send", "send_message"]

_PIECE: Final = 16384
_STEPS_IN_A_SECOND: Final = 20


class Reader:
    """The bytes of a stream that have come and were not taken."""

    __slots__ = ("data", "has_ended", "is_truncated", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = bytearray()
        self.has_ended = False
        self.is_truncated = False
        """Whether it ended without TLS's end."""

    async def more(self) -> bool:
        """Read what comes next; False at the end. Cancelling loses nothing. Raises OSError."""
        if self.has_ended:
            await trio.lowlevel.checkpoint()
            return False
        piece = bytearray(_PIECE)
        await trio.lowlevel.checkpoint()
        try:
            while (count := self.stream.receive_nowait(memoryview(piece))) is None:
                if (count := self.stream.receive_urgent(memoryview(piece))) is not None:
                    break
                await self.stream.wait_receivable()
        except StreamTruncated:
            self.is_truncated, count = True, 0
        if count:
            self.data += piece[:count]
        else:
            self.stream.transport.raise_if_reset()  # which sending may have met first
            self.has_ended = True
        return bool(count)

    def take(self, count: int | None = None) -> bytes:
        """The next bytes, all by default."""
        count = len(self.data) if count is None else count
        taken = bytes(self.data[:count])
        del self.data[:count]
        return taken


async def send(stream: Stream, data: bytes, rate: float | None = None) -> None:
    """Send everything, at most `rate` bytes in a second."""
    if not rate:
        if data:
            await stream.send_all(memoryview(data))
        return
    step = max(1, int(rate / _STEPS_IN_A_SECOND))
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        await stream.send_all(memoryview(piece))
        await trio.sleep(len(piece) / rate)


async def send_message(stream: Stream, head: bytes, body: bytes, rate: float | None) -> None:
    """Send a head, and what is there of its body, at most `rate` bytes in a second: in one piece
    without a rate, since a server may read once."""
    if rate:
        await send(stream, head)
        await send(stream, body, rate)
    else:
        await send(stream, head + body)


async def relay(source: Reader, sink: Stream) -> None:
    """Move everything to the end, and the ends. Raises OSError."""
    while True:
        if data := source.take():
            await sink.send_all(memoryview(data))
        if not await source.more():
            await pass_end(source, sink)
            await end_below(source, sink)
            return


async def pass_end(source: Reader, sink: Stream) -> None:
    """Pass on the end of a source. One without TLS's end goes on without one, by `end_below`."""
    if not (source.is_truncated and sink.below):
        await sink.send_eof()


async def end_below(source: Reader, sink: Stream) -> None:
    """Pass on the ends of the streams below, one by one, when they come: the FIN that follows a
    close_notify. Raises OSError."""
    above: Stream = source.stream
    while above.below and sink.below:
        above, sink = above.below, sink.below
        with suppress(StreamTruncated):
            await above.wait_end()
        await sink.send_eof()
