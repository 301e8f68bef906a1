"""A connection of HTTP/1: what its heads ask for, and which protocol comes next.

Requests and responses are never held back for each other, with two exceptions, after which the
client's bytes may belong to another protocol. After an `Upgrade` the client's side waits for the
answer. A CONNECT stays unread until all requests before it are answered; then it opens a layer of
its own (connect.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    End,
    Unreadable,
)
from mitml4.protocols.http.asked import disagreeing, is_elsewhere, of_fields, of_target
from mitml4.protocols.http.events import HttpRequest, HttpResponse, Pairs
from mitml4.protocols.http.exchange import UPGRADES, origin, shown
from mitml4.protocols.http.http1_heads import (
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
from mitml4.protocols.http.http1_messages import HttpMessages
from mitml4.protocols.http.http1_opening import SIMPLE_REQUEST
from mitml4.protocols.http.http1_pipeline import HttpExchange, Pipeline
from mitml4.protocols.http.http1_usual import (
    UsualRequest,
    UsualResponse,
    usual_request,
    usual_response,
)
from mitml4.protocols.wire_text import text
from mitml4.regex import regex

__all__ = ["HttpConversation"]

_PAGE_BEGUN: Final = regex(rb"(?!HTTP/)[\t\r\n\x20-\xff]")

_BARE_BYTES: Final = 512
_FIELD_BYTES: Final = 160
"""The memory of a request beside its bytes, and of each of its header fields."""

UP, DOWN = Direction.UP, Direction.DOWN


@dataclass(slots=True)
class HttpConversation(HttpMessages):
    """Reads requests and responses. A subclass has the details."""

    follows_connect: ClassVar[bool] = False
    """Whether this conversation reads CONNECT, or leaves it to an inner layer."""

    host: str | None = None
    absolute_form: bool = False
    """Of the first request: its Host, and whether its target is an absolute URL."""
    upgrade: str | None = None
    """The protocol that a 101 switched to."""
    pipeline: Pipeline = field(init=False, repr=False)
    _connect_waits: bool = False
    _switching: bool = False
    """A 101 has arrived before the end of the request that it answers."""
    _usual: tuple[UsualRequest, list[End], str, Pairs | None] | None = None
    """The last usual head: the hosts that it asks for, its URL, and the headers that are shown."""

    def __post_init__(self) -> None:
        self.pipeline = Pipeline(self.context.clock)

    def close(self) -> None:
        last = self.sides[UP].exchange
        one_sided = self.sides[DOWN].exchange is None
        self.protocol_events += self.pipeline.cut(last, one_sided=one_sided)

    def asked_ahead(self, data: bytes) -> Sequence[End] | None:
        """Some servers accept a head as whole that is not whole here."""
        return of_fields(data, self.context) if self.up is PEEK else None

    @property
    def memory(self) -> int:
        return self.pipeline.waiting_bytes

    def head_read(self, exchange: HttpExchange, status: int | None) -> None:
        """A head was read; `status` is None for a request. Decides whether the layer is
        announced: the answer to an `Upgrade` is one of the details."""
        self.details_ready = self.details_ready or not exchange.pauses or status is not None

    def read_request(self, data: bytes, at: int) -> int:
        if head := usual_request(data, at):
            return self._take_usual_request(head)
        if not self.pipeline.requests and STATUS_LINE.match(data, at):
            return self._follow_no_further()
        if data.find(b"\n", at) < 0:
            return self._part_of_request(data, at)
        line = REQUEST_LINE.match(data, at) or CONNECT_LINE.match(data, at)
        if line is None:
            return self._other_line(data, at)
        if line["method"] == b"CONNECT" and not self.follows_connect:
            return self._leave_connect()
        # Some proxies connect before they have read the whole head.
        self.named += self._asked_by(line)
        end = HEAD_END.search(data, line.end() - 1)
        if end is None:
            return not_whole(data, at, line, "not a request line")
        self._request_head(line, data[line.end() : end.start()])
        return end.end() - at

    def _follow_no_further(self) -> int:
        """A capture took the server for the client."""
        self.up = self.down = FORWARD_ALL
        self.details_ready = True
        self.named.append(Unreadable("HTTP/1: not a request line"))
        return 0

    def _part_of_request(self, data: bytes, at: int) -> int:
        partial = REQUEST_BEGUN.fullmatch(data, at) or CONNECT_BEGUN.fullmatch(data, at)
        if not self.pipeline.requests:
            partial = partial or STATUS_BEGUN.fullmatch(data, at)
        return not_whole(data, at, partial, "not a request line")

    def _other_line(self, data: bytes, at: int) -> int:
        """A line that is no request line of HTTP/1."""
        if not self.pipeline.requests and SIMPLE_REQUEST.match(data, at):
            return self._simple_request(data, at)
        self.elsewhere = self.elsewhere or is_elsewhere(data[at:])
        self.named += of_fields(data[at:], self.context)
        raise ProtocolError("HTTP/1: not a request line")

    def _leave_connect(self) -> int:
        """A CONNECT stays unread: it begins a separate layer."""
        self.up = PAUSE
        self._connect_waits = True
        self._step_aside()
        return 0

    def _request_head(self, line: re.Match[bytes], section: bytes) -> None:
        """A request head is whole: its line, and its header section."""
        hosts = of_fields(section, self.context)
        self.named += hosts
        is_first = not self.pipeline.requests
        if is_first and line["target"].startswith((b"/", b"*")):
            self.named += disagreeing(hosts, self.context)
        fields = Fields.of(section)
        connect = line["method"] == b"CONNECT"
        # RFC 9110 §9.3.6: "A CONNECT request message does not have content."
        body = NO_BODY if connect else framing(fields, line["version"], request=True)
        exchange = self.pipeline.ask(line["method"])
        if connect:
            self.target = exchange.target = connect_target(line)
        exchange.pauses = connect or b"upgrade" in fields.named
        memory = _BARE_BYTES + len(line[0]) + len(section) + _FIELD_BYTES * len(fields.lines)
        self._note_request(exchange, line, fields, memory)
        self.begin_body(UP, exchange, body, fields.lines)

    def _take_usual_request(self, head: UsualRequest) -> int:
        """The same for a usual head. Most have no body, and come when all before them are
        answered: then all of the request was read, and it is an event at once."""
        if self._usual is None or self._usual[0] is not head:
            path = text(self.context.shown.url(head.target))
            self._usual = (
                head,
                of_fields(head.section, self.context),
                origin(self.context, head.host) + path,
                shown(self.context, head.fields.lines),
            )
        _, hosts, url, headers = self._usual
        self.named += hosts
        pipeline = self.pipeline
        is_alone = not (pipeline.unanswered or pipeline.closes)
        if not pipeline.requests:
            self.named += disagreeing(hosts, self.context)
            self._note_first(head.target, head.host)
        exchange = pipeline.ask(head.method)
        request = HttpRequest(
            stream=exchange.stream,
            method=head.method_text,
            url=url,
            version=head.version,
            content_type=head.content_type,
            headers=headers,
        )
        self.details_ready = True
        if is_alone and head.body == NO_BODY:
            self.protocol_events.append(request)
            exchange.request_done = True
            self.sides[UP].exchange = exchange
            return head.size
        lines = head.fields.lines
        memory = _BARE_BYTES + head.size + _FIELD_BYTES * len(lines)
        self.protocol_events += pipeline.add_request(exchange, request, memory)
        self.begin_body(UP, exchange, head.body, lines)
        return head.size

    def _note_first(self, target: bytes, host: bytes | None) -> None:
        self.host = None if host is None else text(self.context.shown.authority(host))
        self.absolute_form = not target.startswith(b"/") and target != b"*"

    def _asked_by(self, line: re.Match[bytes]) -> list[End]:
        """The hosts that a request line asks for."""
        if line["method"] != b"CONNECT":
            self.elsewhere = self.elsewhere or is_elsewhere(line[0])
            return of_target(line["target"], self.context)
        target = connect_target(line)
        if target is None or b" " in line["target"]:
            return [Unreadable("HTTP/1: CONNECT to a host that cannot be read")]
        return [target]

    def _simple_request(self, data: bytes, at: int) -> int:
        """A request of HTTP/0.9 (RFC 1945 §4.1): the only one of its connection."""
        end = data.index(b"\n", at) + 1
        exchange = self.pipeline.ask(b"GET")
        exchange.simple = exchange.request_done = True
        target = data[at:end].split()[1]
        self.named += of_target(target, self.context) + of_fields(data[end:], self.context)
        url = origin(self.context, None) if target.startswith(b"/") else ""
        self.protocol_events.append(
            HttpRequest(
                stream=exchange.stream,
                method="GET",
                url=url + text(self.context.shown.url(target)),
                version="HTTP/0.9",
                content_type=None,
                headers=shown(self.context, ()),
            )
        )
        self.details_ready = True
        self.up = FORWARD_ALL
        return end - at

    def read_response(self, data: bytes, at: int) -> int:
        if head := usual_response(data, at):
            return self._take_usual_response(head, len(data) - at)
        line = STATUS_LINE.match(data, at)
        end = HEAD_END.search(data, at)
        if line is None or end is None:
            partial = line or STATUS_BEGUN.fullmatch(data, at)
            if partial is None and (asked := self._answered_simply(data, at)):
                self.begin_body(DOWN, asked, (Part.UNTIL_END, 0))
                return 0
            return not_whole(data, at, partial, "not a status line")
        start = data.index(b"\n", at) + 1
        fields = Fields.of(data[start : end.start()])
        status = int(line["status"])
        exchange = self.pipeline.front or self.pipeline.ask_unseen()
        version = text(line["version"])
        self._tell_response(exchange, status, version, fields, fields.content_type)
        if status == 101:
            self._switch(exchange, fields)
        elif exchange.method == b"CONNECT" and 200 <= status < 300:
            self._tunnel(exchange)
        elif status >= 200:
            self._answer(exchange, is_last=fields.ends_connection(line["version"]))
            bodiless = _is_bodiless(exchange.method, status)
            body = NO_BODY if bodiless else framing(fields, line["version"], request=False)
            self.begin_body(DOWN, exchange, body, fields.lines)
        return end.end() - at

    def _take_usual_response(self, head: UsualResponse, there: int) -> int:
        """The same for a usual head, of whose response so many bytes are there. If those are all,
        and nobody wants the body, all of it is read."""
        exchange = self.pipeline.front or self.pipeline.ask_unseen()
        self._tell_response(exchange, head.status, head.version, head.fields, head.content_type)
        if exchange.method == b"CONNECT" and head.status < 300:
            self._tunnel(exchange)
            return head.size
        had_paused = exchange.pauses  # then the client's side is read before the body
        self._answer(exchange, is_last=head.is_last)
        body = NO_BODY if _is_bodiless(exchange.method, head.status) else head.body
        part, length = body
        is_whole = part is Part.COUNTED and head.size + length <= there
        if had_paused or not is_whole or self.context.shown.payload:
            self.begin_body(DOWN, exchange, body, head.fields.lines)
            return head.size
        exchange.response_bytes += length
        self.sides[DOWN].exchange = exchange
        self.message_done(DOWN, exchange)
        return head.size + length

    def _answer(self, exchange: HttpExchange, *, is_last: bool) -> None:
        """The head of the final response was read; `is_last`: the server closes behind it."""
        exchange.is_answered = True
        if is_last:
            self.pipeline.closes = True
        if exchange.pauses:
            self._release(exchange)

    def _answered_simply(self, data: bytes, at: int) -> HttpExchange | None:
        """The exchange that is answered as in HTTP/0.9, by a page without a head: old servers
        answer any GET so (`curl --http0.9`). Only to a GET of HTTP/0.9 the page may be anything:
        to others, bytes such as HTTP/2's are none."""
        front = self.pipeline.front
        if front is None or self.sides[DOWN].exchange or front.method != b"GET":
            return None
        return front if front.simple or _PAGE_BEGUN.match(data, at) else None

    def message_done(self, direction: Direction, exchange: HttpExchange) -> None:
        if direction is DOWN:
            self.protocol_events += self.pipeline.end_response()
            if self._connect_waits:
                self._step_aside()
            return
        self.protocol_events += self.pipeline.end_request(exchange)
        if self._switching:
            self.up = SWITCH
        elif exchange.pauses:
            self.up = PAUSE

    def _step_aside(self) -> None:
        """Leave a CONNECT unread to the layer that it opens, once all requests before it are
        answered."""
        if not self.pipeline.unanswered:
            self.up = self.down = SWITCH

    def _release(self, exchange: HttpExchange) -> None:
        """The answer is an ordinary one: a client that waits continues in HTTP."""
        exchange.pauses = False
        if self.up is PAUSE:
            self.up = PEEK

    def _tunnel(self, exchange: HttpExchange) -> None:
        """A CONNECT succeeded: "the tunnel begins after the blank line" (RFC 9110 §9.3.6)."""
        self.begin_body(DOWN, exchange, NO_BODY)
        self.up = self.down = SWITCH

    def _switch(self, exchange: HttpExchange, fields: Fields) -> None:
        """A 101: the server switches protocols at once, the client after its request."""
        if len(self.pipeline.unanswered) > 1:
            raise ProtocolError("HTTP/1: 101 while other requests are pipelined")
        token = fields.first(b"upgrade")
        self.upgrade = None if token is None else text(token)
        self.inner = UPGRADES.get(token.lower()) if token else None
        self.negotiated = b",".join(fields.named.get(b"sec-websocket-extensions", ()))
        self._switching = not exchange.request_done
        self.begin_body(DOWN, exchange, NO_BODY)
        self.down = SWITCH
        if exchange.request_done:
            self.up = SWITCH

    def _note_request(
        self, exchange: HttpExchange, line: re.Match[bytes], fields: Fields, memory: int
    ) -> None:
        method, target, host = line["method"], line["target"], fields.first(b"host")
        in_origin = target.startswith(b"/")
        if in_origin or target == b"*":  # RFC 9112 §3.3: the path of `*` is empty
            path = self.context.shown.url(target)
            url = origin(self.context, host) + text(path).removeprefix("*")
        elif method == b"CONNECT":
            url = text(self.context.shown.authority(target))
        else:
            url = text(self.context.shown.url(target))
        if exchange.stream == 1:
            self._note_first(target, host)
            self.absolute_form = self.absolute_form and method != b"CONNECT"
        request = HttpRequest(
            stream=exchange.stream,
            method=text(method),
            url=url,
            version=text(line["version"]),
            content_type=fields.content_type,
            headers=shown(self.context, fields.lines),
        )
        self.protocol_events += self.pipeline.add_request(exchange, request, memory)
        self.head_read(exchange, None)

    def _tell_response(
        self,
        exchange: HttpExchange,
        status: int,
        version: str,
        fields: Fields,
        content_type: str | None,
    ) -> None:
        if exchange.waiting:
            self.protocol_events += self.pipeline.release_request(exchange)
        self.protocol_events.append(
            HttpResponse(
                stream=exchange.stream,
                status=status,
                version=version,
                content_type=content_type,
                headers=shown(self.context, fields.lines),
            )
        )
        self.head_read(exchange, status)


def _is_bodiless(method: bytes, status: int) -> bool:
    """Whether a final response never has a body (RFC 9112 §6.3)."""
    return method == b"HEAD" or status in (204, 304)
