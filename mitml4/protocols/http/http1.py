"""HTTP/1.0 and HTTP/1.1 (RFC 9112), followed message by message without reading a body.

Theory of operation. Each direction is a row of messages, and each message a row of parts:

    part        looked at until             then
    HEAD        the empty line              BODY · CHUNK_LINE · UNTIL_END · the next HEAD
    BODY        its first byte (requests)   COUNTED, or the next HEAD
    COUNTED     (passed by count)           the next HEAD
    CHUNK_LINE  its line feed               CHUNK, or TRAILER after the chunk of size 0
    CHUNK       (passed by count)           CHUNK_END
    CHUNK_END   its line feed               CHUNK_LINE
    TRAILER     each line feed              itself, or the next HEAD after the empty line
    UNTIL_END   (passed to the end)         –

The directions meet in a queue: a request head puts an exchange in, and response heads belong to
the exchange at its front until a final response is complete. Nothing is held back for that, but
for the two requests after which the client's bytes may belong to somebody else. After an `Upgrade`
the client is held until the answer shows who is next. And a CONNECT stays unread until all that
was asked before it is answered; then it opens a layer of its own (connect.py).

A request that waits behind others is told once it is answered: a server that closes the connection
after an earlier one has never served it. A request that was answered before the first byte of its
body came may never get one (RFC 9110 §10.1.1): a request line in its place begins the next request.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Details,
    Direction,
    End,
    Forward,
    LayerContext,
    Protocol,
    Target,
    Unreadable,
)
from mitml4.protocols.http.asked import is_elsewhere, of_fields, of_target
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.protocols.http.exchange import UPGRADES, Exchange, Trailers, origin, shown
from mitml4.protocols.http.http1_heads import (
    CHUNK_LINE,
    CHUNK_LINE_BEGUN,
    CONNECT_BEGUN,
    CONNECT_LINE,
    HEAD_END,
    NO_BODY,
    REQUEST_BEGUN,
    REQUEST_LINE,
    STATUS_BEGUN,
    STATUS_LINE,
    Fields,
    Part,
    connect_target,
    framing,
    not_whole,
)
from mitml4.protocols.http.http1_opening import KNOWN_METHODS, SIMPLE_REQUEST, detect
from mitml4.protocols.parts.lines import TEXT
from mitml4.protocols.wire_text import text

__all__ = ["PROTOCOL", "Http1", "Http1Details", "HttpExchange"]

MAX_OUTSTANDING: Final = 1024
"""Requests that may wait for their responses on one connection."""
MAX_WAITING_BYTES: Final = 1 << 18
"""Memory of those that wait behind others."""
_BARE_BYTES: Final = 512
_FIELD_BYTES: Final = 160
"""What a request takes in memory beside its bytes, and each of its header fields."""

UP, DOWN = Direction.UP, Direction.DOWN

_LONGEST_METHOD: Final = max(map(len, KNOWN_METHODS))


@dataclass(slots=True)
class HttpExchange(Exchange):
    method: bytes = b""
    memory: int = 0
    """About how many bytes its request takes."""
    holds: bool = False
    """The client's bytes behind this request wait for its final response head."""
    target: Target | None = None
    """Of a CONNECT."""
    untold: HttpRequest | None = None
    """Its request, until it is answered: it waits behind others."""
    simple: bool = False
    """A request of HTTP/0.9: a page without a head may answer it."""
    is_answered: bool = False
    """Its final response head was seen."""


@dataclass(slots=True)
class _Side:
    part: Part = Part.HEAD
    exchange: HttpExchange | None = None
    """That of the message under way, or of the last one."""
    length: int = 0
    """Of the body that begins next."""
    trailers: Trailers = field(default_factory=Trailers)
    """Of the message under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Details(Details):
    """Of the first request: its Host, and whether its target is a whole URL (a plain proxy's
    request). `upgrade`: the protocol that a 101 switched to."""

    host: str | None
    absolute_form: bool
    upgrade: str | None


@dataclass(slots=True)
class Http1(Conversation):
    """A connection of HTTP/1 messages."""

    name: ClassVar[str] = "http/1"
    follows_connect: ClassVar[bool] = False
    """Whether CONNECT is this conversation's own, or opens an inner one."""

    host: str | None = None
    absolute_form: bool = False
    upgrade: str | None = None
    _sides: dict[Direction, _Side] = field(default_factory=lambda: {UP: _Side(), DOWN: _Side()})
    _unanswered: deque[HttpExchange] = field(default_factory=deque)
    _waiting_bytes: int = 0
    _messages: int = 0
    _closes: bool = False
    """A response said that it is the last: what is asked behind it may never be served."""
    _connect_waits: bool = False
    _switching: bool = False
    """A 101 has come, and the request that it answers is still being sent."""

    def feed(self, direction: Direction, data: bytes) -> int:
        self.named.clear()
        at = 0
        held = self.up is PAUSE
        while at < len(data):
            directive = self.directive(direction)
            if isinstance(directive, Forward):
                rest = len(data) - at
                taken = rest if directive.count is None else min(rest, directive.count)
                self.passed(direction, taken)
            elif directive is PEEK:
                taken = self._take(direction, data, at)
            else:
                break
            at += taken
            if not taken or (held and self.up is not PAUSE):
                break  # not whole; or what the client said meanwhile comes first
        return at

    def passed(self, direction: Direction, count: int) -> None:
        side = self._sides[direction]
        if side.exchange is not None:
            if direction is UP:
                side.exchange.request_bytes += count
            else:
                side.exchange.response_bytes += count
        directive = self.directive(direction)
        if not isinstance(directive, Forward) or directive.count is None:
            return
        if left := directive.count - count:
            self.set_directive(direction, Forward(left))
            return
        self.set_directive(direction, PEEK)
        if side.part is Part.CHUNK:
            side.part = Part.CHUNK_END
        else:
            self._complete(direction)

    def end(self, direction: Direction) -> None:
        if direction is UP:
            return
        if self._sides[DOWN].part is Part.UNTIL_END:
            self._complete(DOWN)
        if self.up is PAUSE:
            self.up = FORWARD_ALL  # the answer that it waits for will never come

    def close(self) -> None:
        unfinished = list(self._unanswered)
        asked = self._sides[UP].exchange
        if asked and asked.response_done and not asked.request_done:
            unfinished.insert(0, asked)
        one_sided = self._sides[DOWN].exchange is None and not any(
            exchange.is_answered for exchange in unfinished
        )
        for exchange in unfinished:
            if one_sided:  # a capture of the client's side alone shows what it asked
                self._tell_request(exchange)
            if exchange.untold is None:
                self.protocol_events.append(exchange.end(self.context.clock(), "cut"))
        self._unanswered.clear()

    def asked_ahead(self, data: bytes) -> Sequence[End] | None:
        """Some servers take a head for whole that is not whole to us."""
        return of_fields(data, self.context) if self.up is PEEK else None

    @property
    def memory(self) -> int:
        return self._waiting_bytes

    def details(self) -> Details:
        return Http1Details(host=self.host, absolute_form=self.absolute_form, upgrade=self.upgrade)

    def _take(self, direction: Direction, data: bytes, at: int) -> int:
        """Read one part at `at`; how long it is, 0 while it is not whole."""
        match self._sides[direction].part:
            case Part.HEAD if data[at] in b"\r\n":
                return self._line(data, at, "a lone carriage return", blank=True)
            case Part.HEAD if direction is UP:
                return self._request(data, at)
            case Part.HEAD:
                return self._response(data, at)
            case Part.BODY:
                return self._body(data, at)
            case Part.CHUNK_LINE:
                return self._chunk_line(direction, data, at)
            case Part.CHUNK_END:
                length = self._line(data, at, "a chunk longer than its size", blank=True)
                if length:
                    self._sides[direction].part = Part.CHUNK_LINE
                return length
            case Part.TRAILER:
                length = self._line(data, at, "an endless trailer", blank=False)
                if length:
                    self._trailer(direction, data[at : at + length])
                return length
            case part:
                raise AssertionError(f"{part} is passed, not looked at")

    @staticmethod
    def _line(data: bytes, at: int, fault: str, *, blank: bool) -> int:
        """The length of the line at `at`, 0 while it has no end; `blank`: an empty one only."""
        length = data.find(b"\n", at) + 1 - at
        line = data[at : at + length] if length > 0 else data[at:]
        if (blank and line not in (b"\r\n", b"\n", b"\r")) or len(line) >= MAX_PEEK:
            raise ProtocolError(f"HTTP/1: {fault}")
        return max(length, 0)

    def _body(self, data: bytes, at: int) -> int:
        """The first bytes of a request's body, or the next request in its place."""
        if self._is_skipped(data, at):
            return 0 if data.find(b"\n", at) < 0 else self._next_request(data, at)
        side = self._sides[UP]
        side.part = Part.COUNTED
        self.up = Forward(side.length)
        taken = min(side.length, len(data) - at)
        self.passed(UP, taken)
        return taken

    def _is_skipped(self, data: bytes, at: int) -> bool:
        """Whether a request line with a registered method comes, or begins, in place of the body of
        a request that was answered before."""
        exchange = self._sides[UP].exchange
        if exchange is None or not exchange.is_answered or exchange.request_bytes:
            return False
        method, space, _ = data[at : at + _LONGEST_METHOD + 1].partition(b" ")
        if not space:
            return any(known.startswith(method) for known in KNOWN_METHODS)
        partial = REQUEST_LINE.match(data, at) or REQUEST_BEGUN.fullmatch(data, at)
        return method in KNOWN_METHODS and partial is not None

    def _next_request(self, data: bytes, at: int) -> int:
        self._complete(UP)
        return self._request(data, at)

    def _trailer(self, direction: Direction, line: bytes) -> None:
        """A line of the trailer section; the empty one ends the message (RFC 9112 §7.1.2)."""
        side = self._sides[direction]
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
                raise ProtocolError("HTTP/1: a chunk without a proper size")
            return 0
        size = int(line[1], 16)
        self._sides[direction].part = Part.CHUNK if size else Part.TRAILER
        if size:
            self.set_directive(direction, Forward(size))
        return line.end() - at

    def _request(self, data: bytes, at: int) -> int:
        if not self._messages and STATUS_LINE.match(data, at):
            self.up = self.down = FORWARD_ALL  # a capture has taken the server for the client
            self.details_ready = True
            self.named.append(Unreadable("HTTP/1: not a request line"))
            return 0
        if data.find(b"\n", at) < 0:
            partial = REQUEST_BEGUN.fullmatch(data, at) or CONNECT_BEGUN.fullmatch(data, at)
            partial = partial or (None if self._messages else STATUS_BEGUN.fullmatch(data, at))
            return not_whole(data, at, partial, "not a request line")
        line = REQUEST_LINE.match(data, at) or CONNECT_LINE.match(data, at)
        if line is None and not self._messages and SIMPLE_REQUEST.match(data, at):
            return self._simple_request(data, at)
        if line is None:
            self.elsewhere = self.elsewhere or is_elsewhere(data[at:])
            self.named += of_fields(data[at:], self.context)
            raise ProtocolError("HTTP/1: not a request line")
        connect = line.re is CONNECT_LINE
        if connect and not self.follows_connect:
            self.up = PAUSE
            self._connect_waits = True
            self._step_aside()
            return 0
        # Some proxies set out before they have read the head to its end.
        self.named += self._asked_by(line)
        end = HEAD_END.search(data, line.end() - 1)
        if end is None:
            return not_whole(data, at, line, "not a request line")
        section = data[line.end() : end.start()]
        self.named += of_fields(section, self.context)
        fields = Fields.of(section)
        # RFC 9110 §9.3.6: "A CONNECT request message does not have content."
        body = NO_BODY if connect else framing(fields, line["version"], request=True)
        exchange = self._ask(line["method"])
        exchange.memory = _BARE_BYTES + end.end() - at + _FIELD_BYTES * len(fields.lines)
        if connect:
            self.target = exchange.target = connect_target(line)
        exchange.holds = connect or b"upgrade" in fields.named
        self._note_request(exchange, line, fields)
        self._begin(UP, exchange, *body)
        return end.end() - at

    def _asked_by(self, line: re.Match[bytes]) -> list[End]:
        """Where a request line wants to go."""
        if line.re is not CONNECT_LINE:
            self.elsewhere = self.elsewhere or is_elsewhere(line[0])
            return of_target(line["target"], self.context)
        target = connect_target(line)
        if target is None or b" " in line["target"]:
            return [Unreadable("HTTP/1: CONNECT to a host that cannot be read")]
        return [target]

    def _simple_request(self, data: bytes, at: int) -> int:
        """A request of HTTP/0.9 (RFC 1945 §4.1): the only one of its connection."""
        end = data.index(b"\n", at) + 1
        exchange = self._ask(b"GET")
        exchange.simple = exchange.request_done = True
        target = data[at:end].split()[1]
        self.named += of_target(target, self.context) + of_fields(data[end:], self.context)
        url = origin(self.context, None) if target.startswith(b"/") else ""
        self.protocol_events.append(
            HttpRequest(
                stream=exchange.stream,
                method="GET",
                url=url + text(target),
                version="HTTP/0.9",
                content_type=None,
                headers=shown(self.context, ()),
            )
        )
        self.details_ready = True
        self.up = FORWARD_ALL
        return end - at

    def _response(self, data: bytes, at: int) -> int:
        line = STATUS_LINE.match(data, at)
        end = HEAD_END.search(data, at)
        if line is None or end is None:
            partial = line or STATUS_BEGUN.fullmatch(data, at)
            if partial is None and self._unanswered and self._unanswered[0].simple:
                self._begin(DOWN, self._unanswered[0], Part.UNTIL_END, 0)
                return 0
            return not_whole(data, at, partial, "not a status line")
        start = data.index(b"\n", at) + 1
        fields = Fields.of(data[start : end.start()])
        status = int(line["status"])
        exchange = self._unanswered[0] if self._unanswered else self._ask_unseen()
        self._note_response(exchange, line, fields)
        if status == 101:
            self._switch(exchange, fields)
        elif exchange.method == b"CONNECT" and 200 <= status < 300:
            self._tunnel(exchange)
        elif status >= 200:
            exchange.is_answered = True
            self._closes = self._closes or _is_last(fields, line["version"])
            self._release(exchange)
            bodiless = exchange.method == b"HEAD" or status in (204, 304)
            body = NO_BODY if bodiless else framing(fields, line["version"], request=False)
            self._begin(DOWN, exchange, *body)
        return end.end() - at

    def _ask(self, method: bytes) -> HttpExchange:
        """Queue the exchange that a request opens."""
        if len(self._unanswered) >= MAX_OUTSTANDING:
            raise ProtocolError("HTTP/1: too many requests without a response")
        self._messages += 1
        exchange = HttpExchange(self._messages, self.context.clock(), method=method)
        self._unanswered.append(exchange)
        return exchange

    def _ask_unseen(self) -> HttpExchange:
        """The exchange of a response whose request nobody saw (captures that begin midway)."""
        exchange = self._ask(b"")
        exchange.request_done = True
        return exchange

    def _begin(self, direction: Direction, exchange: HttpExchange, part: Part, length: int) -> None:
        """The head of a message is over, and this is its body."""
        side = self._sides[direction]
        side.exchange, side.part, side.length = exchange, part, length
        if part is Part.UNTIL_END:
            self.set_directive(direction, FORWARD_ALL)
        elif length and direction is UP:
            side.part = Part.BODY
        elif length:
            self.set_directive(direction, Forward(length))
        elif part is Part.COUNTED:
            self._complete(direction)

    def _complete(self, direction: Direction) -> None:
        """A message is over: go on to the next one, or to whoever comes instead."""
        side = self._sides[direction]
        exchange = side.exchange
        assert exchange is not None
        side.part = Part.HEAD
        self.set_directive(direction, PEEK)
        if direction is DOWN:
            self._unanswered.popleft()
            exchange.response_done = True
            self._step_aside()
        else:
            exchange.request_done = True
            if self._switching:
                self.up = SWITCH
            elif exchange.holds:
                self.up = PAUSE
        if exchange.request_done and exchange.response_done:
            self.protocol_events.append(exchange.end(self.context.clock()))

    def _step_aside(self) -> None:
        """Leave a CONNECT, unread, to the layer that it opens, once all before it is answered."""
        if self._connect_waits and not self._unanswered:
            self.up = self.down = SWITCH

    def _release(self, exchange: HttpExchange) -> None:
        """The answer is an ordinary one: what the client says next is still HTTP."""
        if exchange.holds and self.up is PAUSE:
            self.up = PEEK
        exchange.holds = False

    def _tunnel(self, exchange: HttpExchange) -> None:
        """A CONNECT succeeded: "the tunnel begins after the blank line" (RFC 9110 §9.3.6)."""
        self._begin(DOWN, exchange, *NO_BODY)
        self.up = self.down = SWITCH

    def _switch(self, exchange: HttpExchange, fields: Fields) -> None:
        """A 101: the server speaks the new protocol at once, the client after its request."""
        if len(self._unanswered) > 1:
            raise ProtocolError("HTTP/1: 101 in the midst of pipelined requests")
        token = fields.first(b"upgrade")
        self.upgrade = None if token is None else text(token)
        self.inner = UPGRADES.get(token.lower()) if token else None
        self._switching = not exchange.request_done
        self._begin(DOWN, exchange, *NO_BODY)
        self.down = SWITCH
        if exchange.request_done:
            self.up = SWITCH

    def _note_request(self, exchange: HttpExchange, line: re.Match[bytes], fields: Fields) -> None:
        method, target, host = line["method"], line["target"], fields.first(b"host")
        in_origin = target.startswith(b"/")
        if in_origin or target == b"*":  # RFC 9112 §3.3: the path of `*` is empty
            url = origin(self.context, host) + text(target).removeprefix("*")
        else:
            url = text(target)
        if exchange.stream == 1:
            self.host = None if host is None else text(host)
            self.absolute_form = method != b"CONNECT" and not in_origin and target != b"*"
        exchange.untold = HttpRequest(
            stream=exchange.stream,
            method=text(method),
            url=url,
            version=text(line["version"]),
            content_type=fields.content_type,
            headers=shown(self.context, fields.lines),
        )
        self._waiting_bytes += exchange.memory
        if exchange is self._unanswered[0] and not self._closes:
            self._tell_request(exchange)
        elif self._waiting_bytes > MAX_WAITING_BYTES:
            raise ProtocolError("HTTP/1: too many requests without a response")
        self.settle(exchange, None)

    def _tell_request(self, exchange: HttpExchange) -> None:
        if exchange.untold:
            self._waiting_bytes -= exchange.memory
            self.protocol_events.append(exchange.untold)
        exchange.untold = None

    def _note_response(self, exchange: HttpExchange, line: re.Match[bytes], fields: Fields) -> None:
        self._tell_request(exchange)
        status = int(line["status"])
        self.protocol_events.append(
            HttpResponse(
                stream=exchange.stream,
                status=status,
                version=text(line["version"]),
                content_type=fields.content_type,
                headers=shown(self.context, fields.lines),
            )
        )
        self.settle(exchange, status)

    def settle(self, exchange: HttpExchange, status: int | None) -> None:
        """A head was read, with this status if it was a response: may the layer be announced?"""
        self.details_ready = True


def _is_last(fields: Fields, version: bytes) -> bool:
    """Whether a response ends its connection (RFC 9112 §9.3, §9.6)."""
    options = fields.items(b"connection")
    if version in (b"HTTP/1.0", b"ICY"):
        return b"keep-alive" not in options
    return b"close" in options


def _converse(context: LayerContext) -> Conversation:
    return Http1(context=context)


PROTOCOL: Final = Protocol(
    name="http/1",
    detect=detect,
    converse=_converse,
    events=(HttpRequest, HttpResponse, HttpEnd),
    client_first=TEXT,
    server_first=b"HI\r\n",
    conclusive=True,
)
