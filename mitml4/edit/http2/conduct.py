"""What a client may send (RFC 9113).

A server does not see what is held back, and cannot refuse it. So what breaks the protocol ends the
connection here, with the code that a server would send. Frames that pass as they came are left to
the server.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from cachetools import FIFOCache

from mitml4.edit.http2.state import Stream
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_wire import ErrorCode, Http2Error

__all__ = ["Conduct"]

_SIZES: Final = {wire.PRIORITY: wire.PRIORITY_SIZE, wire.RST_STREAM: wire.RST_STREAM_SIZE}
_REMEMBERED: Final = 1000
"""So many streams that were reset here or by the server are remembered."""


class Conduct:
    """What one client may send now."""

    def __init__(self) -> None:
        self.last = 0
        """The highest number of a stream that the client has opened."""
        self.max_streams: int | None = None
        """As the client has acknowledged it."""
        self._has_begun = False
        self._max_frame = wire.MIN_MAX_FRAME
        self._unacknowledged: deque[int | None] = deque()
        self._reset: FIFOCache[int, None] = FIFOCache(_REMEMBERED)

    def on_settings(self, payload: bytes) -> None:
        """The server has sent SETTINGS."""
        values = dict(wire.SETTING.iter_unpack(payload))
        self._max_frame = max(self._max_frame, values.get(wire.MAX_FRAME_SIZE, 0))
        self._unacknowledged.append(values.get(wire.MAX_CONCURRENT_STREAMS, self._latest_limit()))

    def _latest_limit(self) -> int | None:
        return self._unacknowledged[-1] if self._unacknowledged else self.max_streams

    def on_acknowledged(self) -> None:
        """The client has acknowledged the oldest SETTINGS that it had not."""
        if self._unacknowledged:
            self.max_streams = self._unacknowledged.popleft()

    def on_reset(self, number: int) -> None:
        """The server or the editor has reset a stream: the client may still send on it (§5.1)."""
        self._reset[number] = None

    def check(
        self, kind: int, flags: int, number: int, payload: bytes, stream: Stream | None
    ) -> None:
        """Check a frame of the client. `stream`: the open one of this number. Raises Http2Error."""
        if not self._has_begun and kind != wire.SETTINGS:
            raise Http2Error("the preface has no SETTINGS")  # §3.4
        self._has_begun = True
        if len(payload) > self._max_frame or len(payload) != _SIZES.get(kind, len(payload)):
            raise Http2Error("a frame of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        if kind == wire.WINDOW_UPDATE and not int.from_bytes(payload) & wire.ID:
            raise Http2Error("WINDOW_UPDATE of 0")  # §6.9
        if kind in (wire.DATA, wire.HEADERS, wire.RST_STREAM) and not number:
            raise Http2Error("a frame on stream 0")
        if kind not in (wire.DATA, wire.HEADERS, wire.RST_STREAM, wire.WINDOW_UPDATE) or not number:
            return
        if stream:
            self._check_open(kind, flags, stream)
        else:
            self._check_closed(kind, number)

    def _check_open(self, kind: int, flags: int, stream: Stream) -> None:
        if kind not in (wire.DATA, wire.HEADERS):
            return
        if stream.up.has_ended or stream.up.inbox_ended:
            raise Http2Error("a frame on a stream that has ended", ErrorCode.STREAM_CLOSED)  # §5.1
        if kind == wire.HEADERS and not flags & wire.END_STREAM:
            raise Http2Error("trailers that do not end a stream")  # §8.1

    def _check_closed(self, kind: int, number: int) -> None:
        """It was never opened, or is closed (§5.1, §5.1.1)."""
        if number % 2 == 0:
            if kind in (wire.DATA, wire.HEADERS):
                raise Http2Error("a stream of an even number")
        elif number > self.last:
            if kind != wire.HEADERS:
                raise Http2Error("a frame on a stream that is idle")
        elif kind in (wire.DATA, wire.HEADERS) and number not in self._reset:
            raise Http2Error("a frame on a stream that is closed", ErrorCode.STREAM_CLOSED)
