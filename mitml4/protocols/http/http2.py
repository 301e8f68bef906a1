"""HTTP/2 (RFC 9113): heads and sizes of every stream, read from copies of the bytes.

Nothing is held back: both directions are MIRROR, and are read frame by frame (http2_frames.py). A
bounded number of open streams is followed.

A stream that an extended CONNECT has turned into a WebSocket (RFC 8441) is followed as one: the
content of its DATA frames goes to a reader of WebSocket messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Details, Direction, End, Opening, Protocol, Verdict
from mitml4.protocols.http.asked import of_headers
from mitml4.protocols.http.bodies import begin_body
from mitml4.protocols.http.events import (
    GrpcMessage,
    HttpBody,
    HttpEnd,
    HttpRequest,
    HttpResponse,
    Outcome,
)
from mitml4.protocols.http.exchange import (
    UPGRADES,
    Exchange,
    HeaderFields,
    Trailers,
    origin,
    shown,
)
from mitml4.protocols.http.http2_frames import MAX_TABLE, Block, Frames
from mitml4.protocols.http.http2_wire import PREFACE, ErrorCode
from mitml4.protocols.http.websocket import Messages, WebSocket, WebSocketMessage
from mitml4.protocols.protocol_event import StreamLayer
from mitml4.protocols.wire_text import text
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Http2", "Http2Details"]

MAX_STREAMS: Final = 1024
"""Streams that are followed at once; beyond that, the oldest is no longer followed."""
_STREAM_BYTES: Final = 256
"""The memory of a stream."""

UP, DOWN = Direction.UP, Direction.DOWN

_STATUS: Final = regex(rb"[1-9][0-9]{2}")


def detect(opening: Opening) -> Verdict:
    """The client's preface; or, while the client is silent, a SETTINGS frame of the server's."""
    if opening.up:
        return _verdict(opening.up, PREFACE, Verdict.MATCH)
    if not opening.down:
        return Verdict.NEED_MORE
    # A length below 256 and divisible by 6, type SETTINGS, no ACK, stream 0; no setting has id 0.
    length = opening.down[2:3]
    if (length and length[0] % 6) or opening.down[9:11] == b"\0\0":
        return Verdict.REJECT
    return _verdict(opening.down, b"\0\0" + length + b"\x04\0\0\0\0\0", Verdict.LIKELY)


def _verdict(data: bytes, start: bytes, matched: Verdict) -> Verdict:
    if data.startswith(start):
        return matched
    return Verdict.NEED_MORE if start.startswith(data) else Verdict.REJECT


@dataclass(slots=True)
class _Stream(Exchange):
    asks_for_socket: bool = False
    socket: Messages | None = None
    """The reader of this stream's WebSocket, once the server has accepted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What a header block says."""

    fields: HeaderFields
    named: Mapping[bytes, bytes]
    hosts: Sequence[End]
    """Those that the client asks for in it."""
    method: str | None
    url: str
    content_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Details(Details):
    """Whether the first request's content type is `application/grpc…`, and whether it is a
    CONNECT with a `:protocol` (RFC 8441). If a later request opens a WebSocket, there is a
    `websocket` layer."""

    grpc: bool
    extended_connect: bool


@dataclass(slots=True)
class Http2(Frames):
    """A connection of HTTP/2 frames, from the client's preface on.

    Inside `http/1` (the h2c upgrade, RFC 7540 §3.2) stream 1 carries the answer to the request
    there.
    """

    name: ClassVar[str] = "http/2"

    grpc: bool = False
    extended_connect: bool = False
    _streams: dict[int, _Stream] = field(default_factory=dict)
    _has_sockets: bool = False
    _last: dict[Direction, _Head] = field(default_factory=dict, repr=False)
    """The last header block of each direction."""

    def __post_init__(self) -> None:
        if self.context.stack[-1:] == ("http/1",):
            self._open(1).request_done = True
            for side in self.sides.values():  # the SETTINGS in the upgrade were not read
                side.decoder.max_allowed_table_size = MAX_TABLE

    def close(self) -> None:
        for stream in list(self._streams):
            self._close(stream, "cut")

    @property
    def memory(self) -> int:
        return _STREAM_BYTES * len(self._streams) + super(Http2, self).memory

    def details(self) -> Http2Details:
        return Http2Details(grpc=self.grpc, extended_connect=self.extended_connect)

    def read_block(self, direction: Direction, block: Block, headers: HeaderFields) -> None:
        up = direction is UP
        head = self._last.get(direction)
        if head is None or head.fields is not headers:  # what repeats is decoded only once
            hosts = of_headers(headers, self.context) if up else ()
            head = self._last[direction] = self._head(headers, hosts)
        if head.hosts:
            self.named += self._asked(head)
        promised = block.about_stream != block.on_stream
        if head.method is not None and (up or promised):
            self._request(block.about_stream, head, promised=promised)
        elif b":status" in head.named and not (up or promised):
            self._response(block.about_stream, head)
        else:
            self._trailers(direction, block.about_stream, headers)
        self.details_ready = True

    def _asked(self, head: _Head) -> Sequence[End]:
        """The hosts that a header block asks for, without those that are answered elsewhere."""
        policy = self.context.policy
        if head.method is None or not policy.answers_denied:
            return head.hosts
        return [host for host in head.hosts if not policy.is_answered(host)]

    def _head(self, headers: HeaderFields, hosts: Sequence[End]) -> _Head:
        named = dict(headers)
        method, content_type = named.get(b":method"), named.get(b"content-type")
        return _Head(
            fields=headers,
            named=named,
            hosts=hosts,
            method=None if method is None else text(method),
            url="" if method is None else self._url(named),
            content_type=None if content_type is None else text(content_type),
        )

    def _request(self, stream: int, head: _Head, *, promised: bool) -> None:
        exchange = self._open(stream)
        exchange.request_done = promised
        protocol = head.named.get(b":protocol")
        if protocol is not None:
            exchange.asks_for_socket = UPGRADES.get(protocol.lower()) == WebSocket.name
            self.extended_connect = True
        if not promised and not exchange.asks_for_socket and self.context.shown.payload:
            exchange.request_body = begin_body(self.context, stream, "request", head.fields)
        self._note_content_type(head.named)
        self.protocol_events.append(
            HttpRequest(
                stream=stream,
                method=head.method or "",
                url=head.url,
                version="HTTP/2",
                content_type=head.content_type,
                headers=shown(self.context, head.fields),
            )
        )

    def _response(self, stream: int, head: _Head) -> None:
        named = head.named
        status = named[b":status"]
        if _STATUS.fullmatch(status) is None:
            raise ProtocolError("HTTP/2: a status that is not a number")
        self._note_content_type(named)
        self.protocol_events.append(
            HttpResponse(
                stream=stream,
                status=int(status),
                version="HTTP/2",
                content_type=head.content_type,
                headers=shown(self.context, head.fields),
            )
        )
        exchange = self._streams.get(stream)
        if exchange is None:
            return
        if b"grpc-status" in named:  # gRPC's Trailers-Only block
            grpc = (each for each in head.fields if each[0].startswith(b"grpc-"))
            exchange.trailers = Trailers.of(grpc).fields
        if exchange.asks_for_socket and status[:1] == b"2":
            extensions = named.get(b"sec-websocket-extensions", b"")
            exchange.socket = Messages(self.context.shown.payload, extensions, stream)
            if not self._has_sockets:
                self.protocol_events.append(StreamLayer(protocol=WebSocket.name))
            self._has_sockets = True
        if status[:1] != b"1":
            is_shown = self.context.shown.payload and not exchange.socket
            if is_shown and not exchange.response_body:
                exchange.response_body = begin_body(self.context, stream, "response", head.fields)
            exchange.asks_for_socket = False

    def _trailers(self, direction: Direction, stream: int, headers: HeaderFields) -> None:
        """A header block after the content (RFC 9113 §8.1)."""
        exchange = self._streams.get(stream)
        if exchange is None:
            return
        if direction is UP:
            exchange.request_trailers = Trailers.of(headers).fields
        else:
            exchange.trailers = Trailers.of(headers).fields

    def read_content(self, direction: Direction, stream: int, content: bytes) -> None:
        exchange = self._streams.get(stream)
        if exchange is None:
            return
        body = exchange.request_body if direction is UP else exchange.response_body
        if body:
            self.protocol_events += body.write(content)
        elif exchange.socket:
            try:
                self.protocol_events += exchange.socket.read(direction, content)
            except ProtocolError:
                exchange.socket = None  # no WebSocket: only this stream is no longer followed

    def _url(self, named: Mapping[bytes, bytes]) -> str:
        """The target URI (RFC 9113 §8.3.1); of an ordinary CONNECT its authority (§8.5)."""
        authority = named.get(b":authority") or named.get(b"host")
        path = named.get(b":path")
        as_shown = self.context.shown
        if path is None:
            return text(as_shown.authority(authority or b""))
        scheme = named.get(b":scheme")
        start = text(as_shown.url(scheme + b"://" + authority)) if scheme and authority else None
        start = start or origin(self.context, authority)
        return start + text(as_shown.url(path)).removeprefix("*")

    def _note_content_type(self, named: Mapping[bytes, bytes]) -> None:
        content_type = named.get(b"content-type", b"")
        self.grpc = self.grpc or content_type.startswith(b"application/grpc")

    def _open(self, stream: int) -> _Stream:
        self._close(stream, "cut")
        if len(self._streams) >= MAX_STREAMS:
            self._close(next(iter(self._streams)), "cut")
        exchange = self._streams[stream] = _Stream(stream, self.context.clock())
        return exchange

    def count_content(self, direction: Direction, stream: int, size: int) -> bool:
        exchange = self._streams.get(stream)
        if exchange is None:
            return False
        if direction is UP:
            exchange.request_bytes += size
            body = exchange.request_body
        else:
            exchange.response_bytes += size
            body = exchange.response_body
        return body.is_wanted if body else exchange.socket is not None

    def end_half(self, direction: Direction, stream: int) -> None:
        exchange = self._streams.get(stream)
        if exchange is None:
            return
        if direction is UP:
            exchange.end_request(self.context.clock)
            self.protocol_events += exchange.end_request_body()
        else:
            exchange.response_done = True
            self.protocol_events += exchange.end_response_body()
        if exchange.request_done and exchange.response_done:
            self._close(stream)

    def reset_stream(self, stream: int, code: int) -> None:
        self._close(stream, "reset", code)

    def go_away(self, direction: Direction, last: int, code: int) -> None:
        parity = 1 if direction is DOWN else 0
        for stream in [item for item in self._streams if item > last and item % 2 == parity]:
            self._close(stream, "reset", code)

    def _close(self, stream: int, outcome: Outcome = "complete", code: int | None = None) -> None:
        """End a stream. `code` is the error that ended it (RFC 9113 §7)."""
        exchange = self._streams.pop(stream, None)
        if exchange is not None:
            self.protocol_events += exchange.end_request_body()
            self.protocol_events += exchange.end_response_body()
            if exchange.socket:
                exchange.socket.close()
            reset_code = None if code is None else _error_name(code)
            self.protocol_events.append(
                exchange.end(self.context.clock(), outcome, reset_code=reset_code)
            )


def _error_name(code: int) -> str:
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


PROTOCOL: Final = Protocol(
    name="http/2",
    detect=detect,
    converse=lambda context: Http2(context=context),
    has_messages=True,
    events=(HttpRequest, HttpResponse, HttpBody, GrpcMessage, HttpEnd, WebSocketMessage),
    client_first=b"P",
    server_first=b"\0",
    conclusive=True,
)
