"""HTTP/1 messages (RFC 9112), followed part by part in each direction without reading a body.

    part        read until                  then
    HEAD        the empty line              BODY · CHUNK_LINE · UNTIL_END · the next HEAD
    BODY        its first byte (requests)   COUNTED, or the next HEAD
    COUNTED     (passed by count)           the next HEAD
    CHUNK_LINE  its line feed               CHUNK, or TRAILER after the chunk of size 0
    CHUNK       (passed by count)           CHUNK_END
    CHUNK_END   its line feed               CHUNK_LINE
    TRAILER     each line feed              itself, or the next HEAD after the empty line
    UNTIL_END   (passed to the end)         –

A request that is answered before the first byte of its body may never get one (RFC 9110 §10.1.1). A
request line in place of the body then begins the next request.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    PAUSE,
    PEEK,
    Conversation,
    Direction,
    Forward,
)
from mitml4.protocols.http.bodies import MessageBody, begin_body
from mitml4.protocols.http.exchange import HeaderFields, Trailers
from mitml4.protocols.http.http1_heads import (
    BARE_CR,
    CHUNK_LINE,
    CHUNK_LINE_BEGUN,
    REQUEST_BEGUN,
    REQUEST_LINE,
    Part,
)
from mitml4.protocols.http.http1_opening import KNOWN_METHODS
from mitml4.protocols.http.http1_pipeline import HttpExchange

__all__ = ["HttpMessages"]

UP, DOWN = Direction.UP, Direction.DOWN

_LONGEST_METHOD: Final = max(map(len, KNOWN_METHODS))


@dataclass(slots=True)
class _Side:
    part: Part = Part.HEAD
    exchange: HttpExchange | None = None
    """Of the current message, or of the last one."""
    length: int = 0
    """The length of the next body."""
    trailers: Trailers = field(default_factory=Trailers)
    """Those of the current message."""


@dataclass(slots=True)
class HttpMessages(Conversation):
    """Follows both directions, message by message. A subclass reads the heads."""

    counts_all: ClassVar[bool] = True

    sides: dict[Direction, _Side] = field(
        default_factory=lambda: {UP: _Side(), DOWN: _Side()}, repr=False
    )

    def read_request(self, data: bytes, at: int) -> int:
        """Read the request head at `at`. Returns its length, 0 if it is not whole.

        Calls `begin_body` for what follows it.
        """
        raise NotImplementedError

    def read_response(self, data: bytes, at: int) -> int:
        """The same for a response head."""
        raise NotImplementedError

    def message_done(self, direction: Direction, exchange: HttpExchange) -> None:
        """A message is complete, and its direction is read again. Sets another directive where
        another protocol comes next."""
        raise NotImplementedError

    def feed(self, direction: Direction, data: bytes) -> int:
        if self.named:
            self.named.clear()
        at, size = 0, len(data)
        paused = self.up is PAUSE
        while at < size:
            directive = self.up if direction is UP else self.down
            if directive is PEEK:
                taken = self._take(direction, data, at)
            elif isinstance(directive, Forward):
                rest = size - at
                taken = rest if directive.count is None else min(rest, directive.count)
                self._move(direction, data, at, taken)
            else:
                break
            at += taken
            if not taken or (paused and self.up is not PAUSE):
                break  # not whole; or the client's side, which had waited, is read first
        return at

    def _move(self, direction: Direction, data: bytes, at: int, count: int) -> None:
        """Bytes that were shown are those of a Forward."""
        directive = self.up if direction is UP else self.down
        if isinstance(directive, Forward) and directive.is_copied:
            self.copied(direction, data[at : at + count])
        self.passed(direction, count)

    def copied(self, direction: Direction, data: bytes) -> None:
        if body := self._body_of(direction):
            self.protocol_events += body.write(data)
        directive = self.directive(direction)
        if isinstance(directive, Forward):
            self._forward(direction, directive.count)

    def _body_of(self, direction: Direction) -> MessageBody | None:
        """What takes the body of the current message."""
        exchange = self.sides[direction].exchange
        if exchange is None:
            return None
        return exchange.request_body if direction is UP else exchange.response_body

    def _forward(self, direction: Direction, count: int | None) -> None:
        """The next bytes are content."""
        if self.context.shown.payload is None:
            self.set_directive(direction, Forward(count))
            return
        body = self._body_of(direction)
        self.set_directive(direction, Forward(count, body is not None and body.is_wanted))

    def passed(self, direction: Direction, count: int) -> None:
        side = self.sides[direction]
        if side.exchange is not None:
            if direction is UP:
                side.exchange.request_bytes += count
            else:
                side.exchange.response_bytes += count
        directive = self.up if direction is UP else self.down
        assert isinstance(directive, Forward)
        if directive.count != count:
            super(HttpMessages, self).passed(direction, count)
        elif side.part is Part.CHUNK:
            self.set_directive(direction, PEEK)
            side.part = Part.CHUNK_END
        else:
            self._complete(direction)

    def end(self, direction: Direction) -> None:
        if direction is UP:
            return
        if self.sides[DOWN].part is Part.UNTIL_END:
            self._complete(DOWN)
        if self.up is PAUSE:
            self.up = FORWARD_ALL  # no answer will come

    def _take(self, direction: Direction, data: bytes, at: int) -> int:
        """Read the part at `at`. Returns its length, 0 if it is not whole."""
        part = self.sides[direction].part
        if part is Part.HEAD:
            if data[at] in b"\r\n":
                return self._line(data, at, "a lone carriage return", blank=True)
            read = self.read_request if direction is UP else self.read_response
            return read(data, at)
        match part:
            case Part.BODY:
                return self._body(data, at)
            case Part.CHUNK_LINE:
                return self._chunk_line(direction, data, at)
            case Part.CHUNK_END:
                length = self._line(data, at, "a chunk longer than its size", blank=True)
                if length:
                    self.sides[direction].part = Part.CHUNK_LINE
                return length
            case Part.TRAILER:
                length = self._line(data, at, "an endless trailer", blank=False)
                if length:
                    self._trailer(direction, data[at : at + length])
                return length
            case _:
                raise AssertionError(f"{part} is passed, not read")

    @staticmethod
    def _line(data: bytes, at: int, fault: str, *, blank: bool) -> int:
        """The length of the line at `at`, 0 if it has no end. `blank`: only an empty line is
        valid."""
        length = data.find(b"\n", at) + 1 - at
        line = data[at : at + length] if length > 0 else data[at:]
        if (blank and line not in (b"\r\n", b"\n", b"\r")) or len(line) >= MAX_PEEK:
            raise ProtocolError(f"HTTP/1: {fault}")
        return max(length, 0)

    def _body(self, data: bytes, at: int) -> int:
        """Read the first bytes of a request's body, or the next request in their place."""
        if self._is_skipped(data, at):
            return 0 if data.find(b"\n", at) < 0 else self._next_request(data, at)
        side = self.sides[UP]
        side.part = Part.COUNTED
        self._forward(UP, side.length)
        taken = min(side.length, len(data) - at)
        self._move(UP, data, at, taken)
        return taken

    def _is_skipped(self, data: bytes, at: int) -> bool:
        """Whether a request line with a registered method is, or begins, in place of the body of a
        request that was answered before."""
        exchange = self.sides[UP].exchange
        if exchange is None or not exchange.is_answered or exchange.request_bytes:
            return False
        method, space, _ = data[at : at + _LONGEST_METHOD + 1].partition(b" ")
        if not space:
            return any(known.startswith(method) for known in KNOWN_METHODS)
        partial = REQUEST_LINE.match(data, at) or REQUEST_BEGUN.fullmatch(data, at)
        return method in KNOWN_METHODS and partial is not None

    def _next_request(self, data: bytes, at: int) -> int:
        self._complete(UP)
        return self.read_request(data, at)

    def _trailer(self, direction: Direction, line: bytes) -> None:
        """Read a line of the trailer section. The empty line ends the message (RFC 9112 §7.1.2)."""
        side = self.sides[direction]
        if line.startswith(b"\r") and line != b"\r\n":
            raise ProtocolError(BARE_CR)
        name, _, value = line.partition(b":")
        if name.strip():
            side.trailers.add(name.strip(), value.strip())
            return
        assert side.exchange is not None
        if direction is UP:
            side.exchange.request_trailers = side.trailers.fields
        else:
            side.exchange.trailers = side.trailers.fields
        side.trailers = Trailers()
        self._complete(direction)

    def _chunk_line(self, direction: Direction, data: bytes, at: int) -> int:
        if direction is UP and self._is_skipped(data, at) and not CHUNK_LINE.match(data, at):
            return 0 if data.find(b"\n", at) < 0 else self._next_request(data, at)
        line = CHUNK_LINE.match(data, at)
        if line is None:
            if CHUNK_LINE_BEGUN.fullmatch(data, at) is None or len(data) - at >= MAX_PEEK:
                raise ProtocolError("HTTP/1: a chunk without a valid size")
            return 0
        size = int(line[1], 16)
        self.sides[direction].part = Part.CHUNK if size else Part.TRAILER
        if size:
            self._forward(direction, size)
        return line.end() - at

    def begin_body(
        self,
        direction: Direction,
        exchange: HttpExchange,
        body: tuple[Part, int],
        headers: HeaderFields = (),
    ) -> None:
        """The head of a message is complete, and this body follows: how it is read, and its
        length."""
        part, length = body
        side = self.sides[direction]
        side.exchange, side.part, side.length = exchange, part, length
        if self.context.shown.payload and (part is not Part.COUNTED or length):
            if direction is UP:
                exchange.request_body = begin_body(
                    self.context, exchange.stream, "request", headers
                )
            else:
                exchange.response_body = begin_body(
                    self.context, exchange.stream, "response", headers
                )
        if part is Part.UNTIL_END:
            self._forward(direction, None)
        elif length and direction is UP:
            side.part = Part.BODY
        elif length:
            self._forward(direction, length)
        elif part is Part.COUNTED:
            self._complete(direction)

    def _complete(self, direction: Direction) -> None:
        """The message is complete: continue with the next one, or with another protocol."""
        side = self.sides[direction]
        assert side.exchange is not None
        side.part = Part.HEAD
        if direction is UP:
            self.up = PEEK
        else:
            self.down = PEEK
        self.message_done(direction, side.exchange)
