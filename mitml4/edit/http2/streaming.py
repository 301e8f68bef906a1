"""Content of HTTP/2 that goes through somebody's hands piece by piece: the messages of a WebSocket,
and bodies on their way to and from another server.

What comes waits in the `inbox` of its half, uncredited, so that its sender stops. Who takes it
credits it; what they send in its place waits for the receiver's windows in the queue.
"""

from __future__ import annotations

from typing import Final

from mitml4.edit.http2.sending import Sending
from mitml4.edit.http2.state import Half, Stream
from mitml4.protocols.conversation import Direction

__all__ = ["Streaming"]

_MAX_QUEUED: Final = 1 << 20
"""Bytes of a half that may wait for windows before no more are to be sent."""


class Streaming(Sending):
    """For subclassing."""

    def stream_content(self, stream: Stream, direction: Direction) -> None:
        """From now on, `take_content` gives what comes."""
        half = stream.half(direction)
        if half.inbox is None:
            half.inbox = bytearray(half.queue[half.credited :])
            del half.queue[half.credited :]
            half.inbox_ended, half.has_ended = half.has_ended, False

    def take_content(self, stream: Stream, direction: Direction) -> bytes:
        """What has come."""
        half = stream.half(direction)
        if not half.inbox or self.streams.get(stream.number) is not stream:
            return b""
        taken = bytes(half.inbox)
        half.inbox.clear()
        self._credit(self._legs[direction], stream.number, len(taken))
        return taken

    def has_ended(self, stream: Stream, direction: Direction) -> bool:
        """Whether all was taken that will come."""
        half = stream.half(direction)
        is_open = self.streams.get(stream.number) is stream and half.inbox is not None
        return not is_open or (half.inbox_ended and not half.inbox)

    def has_content(self, stream: Stream, direction: Direction) -> bool:
        """Whether there is anything to take, or there will not be any more."""
        return bool(stream.half(direction).inbox) or self.has_ended(stream, direction)

    def send_content(self, stream: Stream, direction: Direction, data: bytes) -> bool:
        """Send this. Returns whether anybody still takes it."""
        half = stream.half(direction)
        if self.streams.get(stream.number) is not stream or half.is_dropped or half.is_over:
            return False
        half.queue += data
        half.credited += len(data)
        self._count_queue(half)
        self._pump(stream, direction)
        return True

    def is_full(self, stream: Stream, direction: Direction) -> bool:
        """Whether what was sent waits for windows, so that no more should be."""
        is_open = self.streams.get(stream.number) is stream
        return is_open and len(stream.half(direction).queue) >= _MAX_QUEUED

    def end_content(self, stream: Stream, direction: Direction) -> None:
        """Nothing more comes behind what was sent."""
        half = stream.half(direction)
        if self.streams.get(stream.number) is not stream or half.is_dropped or half.is_over:
            return
        half.inbox, half.has_ended = None, True
        self._pump(stream, direction)
        self._forget_if_over(stream)

    def let_content_pass(self, stream: Stream, direction: Direction) -> None:
        """What has come goes on as it is, and so does what follows."""
        half = stream.half(direction)
        if half.inbox is None or self.streams.get(stream.number) is not stream:
            return
        half.queue += half.inbox
        half.inbox, half.has_ended = None, half.inbox_ended
        self._pump(stream, direction)
        self._forget_if_over(stream)

    def _to_inbox(self, half: Half, content: bytes, *, ends: bool) -> None:
        assert half.inbox is not None
        half.inbox += content
        half.inbox_ended = half.inbox_ended or ends
