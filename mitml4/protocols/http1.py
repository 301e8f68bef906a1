"""HTTP/1.0 and HTTP/1.1 (RFC 9112), followed message by message without reading a body.

Theory of operation. Each direction is a row of messages, and each message a row of parts:

    part        looked at until             then
    HEAD        the empty line              COUNTED · CHUNK_LINE · UNTIL_END · the next HEAD
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
was asked before it is answered; then it opens a layer of its own (http_connect.py).

Heads are read here and not by h11, which is a peer and refuses what a peer must: a request without
`Host`, a space before a colon, a 101 that answers nothing it sent itself. A man in the middle reads
what the two ends evidently understand. Only where readers disagree about where a message ends
(request smuggling) does it give up, by ProtocolError; the tests hold it to h11 for all the rest.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import ClassVar, Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    HOLD,
    INNER,
    LOOK,
    MAX_LOOK,
    PASS_ALL,
    Conversation,
    Direction,
    Facts,
    HttpRequest,
    HttpResponse,
    Opening,
    Pass,
    Protocol,
    Surroundings,
    Target,
    Verdict,
)
from mitml4.protocols.http import UPGRADES, Exchange, origin, pairs, text

__all__ = [
    "CONNECT_BEGUN",
    "CONNECT_LINE",
    "PROTOCOL",
    "Http1",
    "Http1Facts",
    "HttpExchange",
    "connect_target",
    "line_verdict",
]

MAX_OUTSTANDING: Final = 1024
"""Requests that may wait for their responses on one connection."""
MAX_LENGTH_DIGITS: Final = 18
"""Of a Content-Length: up to an exabyte."""

UP, DOWN = Direction.UP, Direction.DOWN


def _begun(*units: bytes) -> bytes:
    """A pattern for every beginning of what the units spell."""
    pattern = b""
    for unit in reversed(units):
        pattern = b"(?:" + unit + pattern + b")?"
    return pattern


# RFC 9110 §5.6.2 (token) and §9.1; spaces in a target are wrong and sent all the same.
_TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_METHOD: Final = rb"(?!CONNECT )" + _TCHAR + rb"{1,20}"
_SCHEME: Final = rb"[A-Za-z][A-Za-z0-9+.\-]*"
_IN_TARGET: Final = rb"[^\x00-\x1f\x7f]"
# RFC 9112 §3.2.3: authority-form is host and port, and nothing else.
_AUTHORITY: Final = (
    rb"(?P<host>\[[0-9A-Za-z:.%\-]+\]|[^\x00-\x20\x7f/?#@\[\]{]+):(?P<port>[0-9]{1,5})"
)
_VERSION: Final = rb"(?P<version>HTTP/1\.[0-9])"
_BLANK_LINES: Final = re.compile(rb"(?:\r?\n){0,2}")

REQUEST_LINE: Final = re.compile(
    rb"(?P<method>" + _METHOD + rb") "
    rb"(?P<target>(?:/|" + _SCHEME + rb":)" + _IN_TARGET + rb"*?|\*) " + _VERSION + rb"\r?\n"
)
_REQUEST_BEGUN: Final = re.compile(
    _begun(
        _METHOD,
        rb" ",
        rb"(?:/" + _IN_TARGET + rb"*"
        rb"|\*(?: " + _IN_TARGET + rb"*)?"
        rb"|" + _SCHEME + rb"(?::" + _IN_TARGET + rb"*)?)\r?",
    )
    + rb"|\r"
)
CONNECT_LINE: Final = re.compile(
    rb"(?P<method>CONNECT) (?P<target>" + _AUTHORITY + rb") " + _VERSION + rb"\r?\n"
)
CONNECT_BEGUN: Final = re.compile(
    _begun(
        *(b"C", b"O", b"N", b"N", b"E", b"C", b"T"),
        rb" [^\x00-\x20\x7f/?#@{]*",
        *(rb"(?<=[0-9]) ", b"H", b"T", b"T", b"P", b"/", b"1", rb"\.", b"[0-9]", rb"\r"),
    )
    + rb"|\r"
)
_STATUS_LINE: Final = re.compile(_VERSION + rb" (?P<status>[1-9][0-9]{2})(?=[ \r\n])")
_STATUS_BEGUN: Final = re.compile(
    _begun(*(b"H", b"T", b"T", b"P", b"/", b"1", rb"\.", b"[0-9]", b" ", b"[1-9]"), *[b"[0-9]"] * 2)
    + rb"|\r"
)
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_TOKEN: Final = re.compile(_TCHAR + rb"+")
_FRAMING: Final = re.compile(rb"content-length|transfer-encoding")
_LENGTH: Final = re.compile(rb"[0-9]{1,%d}" % MAX_LENGTH_DIGITS)
# RFC 9112 §7.1; 15 hexadecimal digits are an exabyte.
_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_CHUNK_LINE_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{0,15}[ \t]*(?:;[^\n]*|\r)?")

# IANA's registry of methods, without CONNECT, PRI and *: a beginning with one of them is a good
# guess before the line is whole.
_KNOWN_METHODS: Final = frozenset(
    b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY DELETE GET HEAD LABEL LINK LOCK MERGE "
    b"MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST "
    b"PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK "
    b"UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)
_LIKELY: Final = re.compile(rb"(?:\r?\n){0,2}([A-Z-]+) (?:/|https?://)")


def line_verdict(data: bytes, whole: re.Pattern[bytes], begun: re.Pattern[bytes]) -> Verdict:
    """What the first line says, behind up to two empty ones (RFC 9112 §2.2)."""
    blank = _BLANK_LINES.match(data)
    start = blank.end() if blank else 0
    if whole.match(data, start):
        return Verdict.MATCH
    return Verdict.NEED_MORE if begun.fullmatch(data, start) else Verdict.REJECT


def detect(opening: Opening) -> Verdict:
    """A request line; from the server's side alone, a status line."""
    if not opening.up:
        return line_verdict(opening.down, _STATUS_LINE, _STATUS_BEGUN)
    verdict = line_verdict(opening.up, REQUEST_LINE, _REQUEST_BEGUN)
    if verdict is not Verdict.NEED_MORE:
        return verdict
    likely = _LIKELY.match(opening.up)
    known = likely is not None and likely[1] in _KNOWN_METHODS
    return Verdict.LIKELY if known else Verdict.NEED_MORE


def connect_target(line: re.Match[bytes]) -> Target:
    """Where a matched CONNECT_LINE wants to go."""
    return Target(text(line["host"].strip(b"[]")), int(line["port"]))


@dataclass(frozen=True, slots=True)
class _Fields:
    """The header section of a message: in order, and by lower-case name."""

    lines: Sequence[tuple[bytes, bytes]]
    named: dict[bytes, list[bytes]]

    @classmethod
    def of(cls, section: bytes) -> _Fields:
        """Read `section`, which lies between the start line and the empty line.

        Raises ProtocolError where one reader would see a field that delimits the message and
        another would not (RFC 9112 §5.1, §11.2).
        """
        if section.startswith((b" ", b"\t")):
            raise ProtocolError("HTTP/1: white space before the first header field")
        lines: list[tuple[bytes, bytes]] = []
        named: dict[bytes, list[bytes]] = {}
        for line in _FOLD.sub(b" ", section).split(b"\n"):
            raw, _, value = line.partition(b":")
            name, value = raw.strip(b" \t\r"), value.strip(b" \t\r")
            key = name.lower()
            if _TOKEN.fullmatch(raw) is None and _FRAMING.search(key):
                raise ProtocolError("HTTP/1: a framing field in disguise")
            if name:
                lines.append((name, value))
                named.setdefault(key, []).append(value)
        return cls(lines, named)

    def first(self, name: bytes) -> bytes | None:
        values = self.named.get(name)
        return values[0] if values else None

    def items(self, name: bytes) -> list[bytes]:
        """The lower-case members of a field that is a list (RFC 9110 §5.6.1)."""
        values = self.named.get(name)
        return (
            [item.strip(b" \t").lower() for item in b",".join(values).split(b",")] if values else []
        )

    @property
    def content_type(self) -> str | None:
        value = self.first(b"content-type")
        return None if value is None else text(value)


class _Part(Enum):
    HEAD = auto()
    COUNTED = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    UNTIL_END = auto()


_NO_BODY: Final = (_Part.COUNTED, 0)


def _framing(fields: _Fields, version: bytes, *, request: bool) -> tuple[_Part, int]:
    """How the body of a message is delimited (RFC 9112 §6.3), and its length if it is counted."""
    codings = [coding for coding in fields.items(b"transfer-encoding") if coding != b"identity"]
    lengths = set(fields.items(b"content-length"))
    if codings:
        # "A server MAY reject a request that contains both", since it may be smuggling; for a
        # response every client follows "the Transfer-Encoding overrides the Content-Length".
        if request and lengths:
            raise ProtocolError("HTTP/1: both Content-Length and Transfer-Encoding")
        if version == b"HTTP/1.0":
            raise ProtocolError("HTTP/1: Transfer-Encoding in HTTP/1.0")
        if codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
            return _Part.CHUNK_LINE, 0
        if request or b"chunked" in codings:
            raise ProtocolError("HTTP/1: a Transfer-Encoding that does not end in chunked")
        return _Part.UNTIL_END, 0
    if not lengths:
        return _NO_BODY if request else (_Part.UNTIL_END, 0)
    length = lengths.pop()
    if lengths or _LENGTH.fullmatch(length) is None:
        raise ProtocolError("HTTP/1: conflicting or malformed Content-Length")
    return _Part.COUNTED, int(length)


@dataclass(slots=True)
class HttpExchange(Exchange):
    holds: bool = False
    """The client's bytes behind this request wait for its final response head."""
    target: Target | None = None
    """Of a CONNECT."""


@dataclass(slots=True)
class _Side:
    part: _Part = _Part.HEAD
    exchange: HttpExchange | None = None
    """That of the message under way, or of the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Facts(Facts):
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
    _sides: dict[Direction, _Side] = field(
        default_factory=lambda: {direction: _Side() for direction in Direction}
    )
    _unanswered: deque[HttpExchange] = field(default_factory=deque)
    _messages: int = 0
    _connect_waits: bool = False
    _switching: bool = False
    """A 101 has come, and the request that it answers is still being sent."""

    def feed(self, direction: Direction, data: bytes) -> int:
        at = 0
        held = self.up is HOLD
        while at < len(data):
            want = self.want(direction)
            if isinstance(want, Pass):
                rest = len(data) - at
                taken = rest if want.count is None else min(rest, want.count)
                self.passed(direction, taken)
            elif want is LOOK:
                taken = self._take(direction, data, at)
            else:
                break
            at += taken
            if not taken or (held and self.up is not HOLD):
                break  # not whole; or what the client said meanwhile comes first
        return at

    def passed(self, direction: Direction, count: int) -> None:
        side = self._sides[direction]
        if side.exchange is not None:
            if direction is UP:
                side.exchange.request_bytes += count
            else:
                side.exchange.response_bytes += count
        want = self.want(direction)
        if not isinstance(want, Pass) or want.count is None:
            return
        if left := want.count - count:
            self.set_want(direction, Pass(left))
            return
        self.set_want(direction, LOOK)
        if side.part is _Part.CHUNK:
            side.part = _Part.CHUNK_END
        else:
            self._complete(direction)

    def end(self, direction: Direction) -> None:
        if direction is UP:
            return
        if self._sides[DOWN].part is _Part.UNTIL_END:
            self._complete(DOWN)
        if self.up is HOLD:
            self.up = PASS_ALL  # the answer that it waits for will never come

    def facts(self) -> Facts:
        return Http1Facts(host=self.host, absolute_form=self.absolute_form, upgrade=self.upgrade)

    def _take(self, direction: Direction, data: bytes, at: int) -> int:
        """Read one part at `at`; how long it is, 0 while it is not whole."""
        match self._sides[direction].part:
            case _Part.HEAD if data[at] in b"\r\n":
                return self._line(data, at, "a lone carriage return", blank=True)
            case _Part.HEAD if direction is UP:
                return self._request(data, at)
            case _Part.HEAD:
                return self._response(data, at)
            case _Part.CHUNK_LINE:
                return self._chunk_line(direction, data, at)
            case _Part.CHUNK_END:
                length = self._line(data, at, "a chunk longer than its size", blank=True)
                if length:
                    self._sides[direction].part = _Part.CHUNK_LINE
                return length
            case _Part.TRAILER:
                length = self._line(data, at, "an endless trailer", blank=False)
                if length and data[at : at + length] in (b"\r\n", b"\n"):
                    self._complete(direction)
                return length
            case part:
                raise AssertionError(f"{part} is passed, not looked at")

    @staticmethod
    def _line(data: bytes, at: int, fault: str, *, blank: bool) -> int:
        """The length of the line at `at`, 0 while it has no end; `blank`: an empty one only."""
        length = data.find(b"\n", at) + 1 - at
        line = data[at : at + length] if length > 0 else data[at:]
        if (blank and line not in (b"\r\n", b"\n", b"\r")) or len(line) >= MAX_LOOK:
            raise ProtocolError(f"HTTP/1: {fault}")
        return max(length, 0)

    def _chunk_line(self, direction: Direction, data: bytes, at: int) -> int:
        line = _CHUNK_LINE.match(data, at)
        if line is None:
            if _CHUNK_LINE_BEGUN.fullmatch(data, at) is None or len(data) - at >= MAX_LOOK:
                raise ProtocolError("HTTP/1: a chunk without a proper size")
            return 0
        size = int(line[1], 16)
        self._sides[direction].part = _Part.CHUNK if size else _Part.TRAILER
        if size:
            self.set_want(direction, Pass(size))
        return line.end() - at

    def _request(self, data: bytes, at: int) -> int:
        if data.find(b"\n", at) < 0:
            begun = _REQUEST_BEGUN.fullmatch(data, at) or CONNECT_BEGUN.fullmatch(data, at)
            return _not_whole(data, at, begun, "not a request line")
        line = REQUEST_LINE.match(data, at) or CONNECT_LINE.match(data, at)
        if line is None:
            raise ProtocolError("HTTP/1: not a request line")
        connect = line.re is CONNECT_LINE
        if connect and not self.follows_connect:
            self.up = HOLD
            self._connect_waits = True
            self._step_aside()
            return 0
        end = _HEAD_END.search(data, line.end() - 1)
        if end is None:
            return _not_whole(data, at, line, "not a request line")
        fields = _Fields.of(data[line.end() : end.start()])
        # RFC 9110 §9.3.6: "A CONNECT request message does not have content."
        body = _NO_BODY if connect else _framing(fields, line["version"], request=True)
        exchange = self._ask(line["method"])
        exchange.target = connect_target(line) if connect else None
        exchange.holds = connect or b"upgrade" in fields.named
        self._note_request(exchange, line, fields)
        self._begin(UP, exchange, *body)
        return end.end() - at

    def _response(self, data: bytes, at: int) -> int:
        line = _STATUS_LINE.match(data, at)
        end = _HEAD_END.search(data, at)
        if line is None or end is None:
            begun = line or _STATUS_BEGUN.fullmatch(data, at)
            return _not_whole(data, at, begun, "not a status line")
        start = data.index(b"\n", at) + 1
        fields = _Fields.of(data[start : end.start()])
        status = int(line["status"])
        exchange = self._unanswered[0] if self._unanswered else self._ask_unseen()
        self._note_response(exchange, line, fields)
        if status == 101:
            self._switch(exchange, fields)
        elif exchange.method == b"CONNECT" and 200 <= status < 300:
            self._tunnel(exchange)
        elif status >= 200:
            self._release(exchange)
            bodiless = exchange.method == b"HEAD" or status in (204, 304)
            body = _NO_BODY if bodiless else _framing(fields, line["version"], request=False)
            self._begin(DOWN, exchange, *body)
        return end.end() - at

    def _ask(self, method: bytes) -> HttpExchange:
        """Queue the exchange that a request opens."""
        if len(self._unanswered) >= MAX_OUTSTANDING:
            raise ProtocolError("HTTP/1: too many requests without a response")
        self._messages += 1
        exchange = HttpExchange(self._messages, method, self.around.clock())
        self._unanswered.append(exchange)
        return exchange

    def _ask_unseen(self) -> HttpExchange:
        """The exchange of a response whose request nobody saw (captures that begin midway)."""
        exchange = self._ask(b"")
        exchange.request_done = True
        return exchange

    def _begin(
        self, direction: Direction, exchange: HttpExchange, part: _Part, length: int
    ) -> None:
        """The head of a message is over, and this is its body."""
        side = self._sides[direction]
        side.exchange, side.part = exchange, part
        if part is _Part.UNTIL_END:
            self.set_want(direction, PASS_ALL)
        elif length:
            self.set_want(direction, Pass(length))
        elif part is _Part.COUNTED:
            self._complete(direction)

    def _complete(self, direction: Direction) -> None:
        """A message is over: go on to the next one, or to whoever comes instead."""
        side = self._sides[direction]
        exchange = side.exchange
        assert exchange is not None
        side.part = _Part.HEAD
        self.set_want(direction, LOOK)
        if direction is DOWN:
            self._unanswered.popleft()
            exchange.response_done = True
            self._step_aside()
        else:
            exchange.request_done = True
            if self._switching:
                self.up = INNER
            elif exchange.holds:
                self.up = HOLD
        if exchange.request_done and exchange.response_done:
            self.notices.append(exchange.end(self.around.clock()))

    def _step_aside(self) -> None:
        """Leave a CONNECT, unread, to the layer that it opens, once all before it is answered."""
        if self._connect_waits and not self._unanswered:
            self.up = self.down = INNER

    def _release(self, exchange: HttpExchange) -> None:
        """The answer is an ordinary one: what the client says next is still HTTP."""
        if exchange.holds and self.up is HOLD:
            self.up = LOOK
        exchange.holds = False

    def _tunnel(self, exchange: HttpExchange) -> None:
        """A CONNECT succeeded: "the tunnel begins after the blank line" (RFC 9110 §9.3.6)."""
        self._begin(DOWN, exchange, *_NO_BODY)
        self.target = exchange.target
        self.up = self.down = INNER

    def _switch(self, exchange: HttpExchange, fields: _Fields) -> None:
        """A 101: the server speaks the new protocol at once, the client after its request."""
        if len(self._unanswered) > 1:
            raise ProtocolError("HTTP/1: 101 in the midst of pipelined requests")
        token = fields.first(b"upgrade")
        self.upgrade = None if token is None else text(token)
        self.inner = UPGRADES.get(token.lower()) if token else None
        self._switching = not exchange.request_done
        self._begin(DOWN, exchange, *_NO_BODY)
        self.down = INNER
        if exchange.request_done:
            self.up = INNER

    def _note_request(self, exchange: HttpExchange, line: re.Match[bytes], fields: _Fields) -> None:
        method, target, host = line["method"], line["target"], fields.first(b"host")
        in_origin = target.startswith(b"/")
        if in_origin or target == b"*":  # RFC 9112 §3.3: the path of `*` is empty
            url = origin(self.around, host) + text(target).removeprefix("*")
        else:
            url = text(target)
        if exchange.stream == 1:
            self.host = None if host is None else text(host)
            self.absolute_form = method != b"CONNECT" and not in_origin and target != b"*"
        self.notices.append(
            HttpRequest(
                stream=exchange.stream,
                method=text(method),
                url=url,
                version=text(line["version"]),
                content_type=fields.content_type,
                headers=pairs(fields.lines),
            )
        )
        self.settle(exchange, None)

    def _note_response(
        self, exchange: HttpExchange, line: re.Match[bytes], fields: _Fields
    ) -> None:
        status = int(line["status"])
        self.notices.append(
            HttpResponse(
                stream=exchange.stream,
                status=status,
                version=text(line["version"]),
                content_type=fields.content_type,
                headers=pairs(fields.lines),
            )
        )
        self.settle(exchange, status)

    def settle(self, exchange: HttpExchange, status: int | None) -> None:
        """A head was read, with this status if it was a response: may the layer be announced?"""
        self.settled = True


def _not_whole(data: bytes, at: int, begun: re.Match[bytes] | None, fault: str) -> int:
    """0, as long as the bytes at `at` can still become a head."""
    if begun is None:
        raise ProtocolError(f"HTTP/1: {fault}")
    if len(data) - at >= MAX_LOOK:
        raise ProtocolError("HTTP/1: a head longer than 64 KiB")
    return 0


def _converse(around: Surroundings) -> Conversation:
    return Http1(around=around)


PROTOCOL: Final = Protocol(
    name="http/1",
    detect=detect,
    converse=_converse,
    client_first=bytes(
        byte for byte in range(128) if re.match(_TCHAR + rb"|[\r\n]", bytes([byte]))
    ),
    server_first=b"H",
)
