"""What an editor wants of the streams of an HTTP/2 connection, and what it has decided."""

from __future__ import annotations

from hpack import HeaderTuple

from mitml4.edit.codings import body_bytes, content_codings, decoded
from mitml4.edit.http2.messages import changed_fields, half_headers
from mitml4.edit.http2.state import Block, Stream
from mitml4.edit.http2.streaming import Streaming
from mitml4.edit.messages import Response
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_wire import frame_bytes

__all__ = ["Decisions"]

UP, DOWN = Direction.UP, Direction.DOWN


class Decisions(Streaming):
    """For subclassing."""

    def collect(self, stream: Stream, direction: Direction) -> bool:
        """The editor wants the whole body. Returns whether it is there; else a job says so, or that
        it is above the limit."""
        half = stream.half(direction)
        half.was_asked = True
        has_reset = direction is DOWN and stream.reset is not None
        if half.has_ended or has_reset or self._legs[direction].has_ended:
            return True
        half.is_collecting = True
        self._collect_more(half, len(half.queue))
        self._credit_all(self._legs[direction], stream.number, half)
        return False

    def hand_over(self, stream: Stream, direction: Direction) -> bool:
        """Give the message its whole body; whether its codings could be undone."""
        half = stream.half(direction)
        message = stream.request if direction is UP else stream.response
        assert message
        codings = content_codings(message.headers)
        message.body = half.content = decoded(bytes(half.queue), codings, self._limit)
        return half.content is not None

    def release(self, stream: Stream, direction: Direction, rate: float | None) -> None:
        """The message goes on, as it is now."""
        if self.streams.get(stream.number) is not stream:
            return  # it was reset meanwhile
        half = stream.half(direction)
        message = stream.request if direction is UP else stream.response
        assert message
        assert half.head
        half.rate = rate
        if message.body is not None and message.body != half.content:
            self._credit_all(self._legs[direction], stream.number, half)
            body = body_bytes(message, half.content, content_codings(half_headers(half)))
            if body or "content-length" in message.headers:
                message.headers["content-length"] = str(len(body))
            half.queue[:] = body
            half.credited = len(body)
        self._release(stream, direction)

    def _release(self, stream: Stream, direction: Direction) -> None:
        half, leg = stream.half(direction), self._legs[direction]
        half.is_collecting = False
        self._count_queue(half)
        block = half.head
        assert block
        half.is_held = False
        message = stream.request if direction is UP else stream.response
        changed = changed_fields(block, message) if message else None
        number = stream.number
        if direction is UP:
            number = self._number_for(stream)
        ends = half.has_ended and not half.queue and half.trailers is None
        self._send_block(leg, block, number, changed, ends=ends)
        half.is_over = ends
        if direction is UP and stream.early_updates:
            self._legs[UP].out += frame_bytes(
                wire.WINDOW_UPDATE, 0, number, stream.early_updates.to_bytes(4)
            )
        self._pump(stream, direction)
        self._forget_if_over(stream)

    def answer(self, stream: Stream, response: Response) -> None:
        """Answer a request instead of the server."""
        if self.streams.get(stream.number) is not stream:
            return
        stream.is_local = True
        self._drop(stream, UP)
        has_body = stream.request is None or stream.request.method != "HEAD"
        body = response.body or b""
        if response.status not in (204, 304):
            response.headers["content-length"] = str(len(body))
        content = body if has_body else b""
        self._send_head(stream, response, ends=not content)
        if content:
            self.send_content(stream, DOWN, content)
            self.end_content(stream, DOWN)
        self._forget_if_over(stream)

    def begin_answer(self, stream: Stream, response: Response) -> bool:
        """Answer a request instead of the server, with a body that comes by `send_content`. Returns
        whether the client still waits."""
        if self.streams.get(stream.number) is not stream:
            return False
        stream.is_local = True
        self._send_head(stream, response, ends=False)
        return True

    def _send_head(self, stream: Stream, response: Response, *, ends: bool) -> None:
        down, headers = stream.down, response.headers
        for name in ("connection", "transfer-encoding", "keep-alive"):
            headers.discard(name)
        fields = [
            HeaderTuple(b":status", b"%d" % response.status),
            *(HeaderTuple(each.name.lower(), each.value) for each in headers.fields),
        ]
        down.head = Block(wire.HEADERS, 0, stream.number, b"", [], bytearray(), fields)
        down.rate, down.has_ended, down.is_over = response.rate, ends, ends
        self._send_block(self._legs[DOWN], down.head, stream.number, fields, ends=ends)

    def hold_request(self, stream: Stream) -> None:
        """The request goes to another server: `take_content` gives its body."""
        stream.is_local = True
        self.stream_content(stream, UP)

    def end_request(self, stream: Stream) -> None:
        """What still comes of it goes nowhere."""
        if self.streams.get(stream.number) is stream:
            self._drop(stream, UP)
            self._forget_if_over(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """Reset a stream at both sides."""
        if self.streams.get(stream.number) is not stream:
            return
        payload = code.to_bytes(4)
        self._legs[DOWN].out += frame_bytes(wire.RST_STREAM, 0, stream.number, payload)
        if not stream.up.is_held and not stream.is_local:
            number = self._to_server.get(stream.number, stream.number)
            self._legs[UP].out += frame_bytes(wire.RST_STREAM, 0, number, payload)
        self._conduct.on_reset(stream.number)
        self._forget(stream)

    def hang(self, stream: Stream) -> None:
        """Nothing more of a stream goes on in either direction."""
        if self.streams.get(stream.number) is stream:
            stream.is_local = stream.is_local or stream.up.is_held
            self._drop(stream, UP)
            self._drop(stream, DOWN)

    def allow(self, stream: Stream, direction: Direction, count: int) -> bool:
        """With a rate: so many more bytes may be sent. Returns whether it goes on."""
        half = stream.half(direction)
        if self.streams.get(stream.number) is not stream or half.is_over:
            return False
        half.allowance = min(half.allowance + count, 1 << 24)
        self._pump(stream, direction)
        self._forget_if_over(stream)
        return True
