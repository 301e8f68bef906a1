"""HTTP/2 (RFC 9113): heads and sizes of every stream, read from copies of the bytes.

Nothing is ever held back: both directions are tapped. Of each frame the nine bytes of its header
are read; header blocks go on to HPACK, SETTINGS say how large its tables may be, and the payload of
every other frame, DATA first of all, is skipped by count. What the reader remembers is bounded: one
frame header or one header block per direction, two HPACK tables, and the streams that are open.

A stream that an extended CONNECT has turned into a WebSocket (RFC 8441) is followed as one: what
its DATA frames carry goes to a conversation of its own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final

from hpack import Decoder, HPACKError

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    MIRROR,
    Conversation,
    Details,
    Direction,
    Directive,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.http.asked import of_headers
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse, Outcome
from mitml4.protocols.http.exchange import (
    UPGRADES,
    Exchange,
    HeaderFields,
    Trailers,
    origin,
    shown,
)
from mitml4.protocols.http.websocket import WebSocket, WebSocketMessage
from mitml4.protocols.protocol_event import StreamLayer
from mitml4.protocols.wire_text import text

__all__ = ["PREFACE", "PROTOCOL", "Http2", "Http2Details"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 §3.4
MAX_HEADER_BLOCK: Final = 65536
"""Bytes of one header block, both as it came and decompressed."""
MAX_STREAMS: Final = 1024
"""Streams that are followed at a time; beyond it the oldest is followed no more."""

MAX_TABLE: Final = 65536
"""Bytes of a dynamic table of HPACK, whatever is negotiated."""
_STREAM_BYTES: Final = 256
_ENTRY_BYTES: Final = 150
"""What a stream takes in memory, and an entry of a table beside its bytes."""

UP, DOWN = Direction.UP, Direction.DOWN

_HEADER: Final = struct.Struct(">HBBBL")  # RFC 9113 §4.1
_HEADER_SIZE: Final = _HEADER.size
_ERROR_CODE: Final = struct.Struct(">L")
_GOING_AWAY: Final = struct.Struct(">LL")  # §6.8
_SETTING: Final = struct.Struct(">HL")  # §6.5.1
# §6
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE = 0, 1, 3, 4, 5
_GOAWAY, _CONTINUATION = 7, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_PRIORITY_SIZE: Final = 5  # §6.2
_PROMISED_SIZE: Final = 4  # §6.6
_RST_SIZE: Final = 4  # §6.4
_HEADER_TABLE_SIZE: Final = 1  # §6.5.2
_STREAM: Final = 0x7FFFFFFF
"""§4.1: the highest bit of a stream identifier is reserved."""
# RFC 9113 §7
_ERRORS: Final = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
]
_PARSED: Final = frozenset({_HEADERS, _SETTINGS, _PUSH_PROMISE, _GOAWAY, _CONTINUATION})
_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")


def detect(opening: Opening) -> Verdict:
    """The client's preface; a SETTINGS frame of a server that speaks first is a candidate."""
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


def _decoder() -> Decoder:
    """Of a table as large as SETTINGS of the other side allow; the encoder says inside its header
    blocks how much of that it uses (RFC 7541 §4.2, §6.3)."""
    return Decoder(max_header_list_size=MAX_HEADER_BLOCK)


@dataclass(slots=True)
class _Frame:
    """One that carries a part of a header block."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def unpadded(self) -> bytes:
        """RFC 9113 §6.2."""
        if not self.flags & _PADDED:
            return self.payload
        if not self.payload or self.payload[0] >= len(self.payload):
            raise ProtocolError("HTTP/2: padding longer than its frame")
        return self.payload[1 : len(self.payload) - self.payload[0]]


@dataclass(slots=True)
class _Block:
    """A header block under way: who it is about, and on which stream its CONTINUATIONs come."""

    on_stream: int
    about_stream: int
    ends_stream: bool
    fragments: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Side:
    has_preface: bool = False
    """The preface is over: the first SETTINGS frame was seen."""
    kept: bytes = b""
    """The beginning of a frame that has not come whole: less than a header block."""
    skip: int = 0
    """Payload bytes of the frame under way that are not looked at."""
    content: int = 0
    """How many of them come first and are content of `stream`; what is left is padding."""
    stream: _Stream | None = None
    """Whose content it is, where that is looked at."""
    ends: int | None = None
    """The stream that is over when they have passed."""
    block: _Block | None = None
    decoder: Decoder = field(default_factory=_decoder)


@dataclass(slots=True)
class _Stream(Exchange):
    asks_for_socket: bool = False
    socket: WebSocket | None = None
    """Follows the WebSocket that this stream is, once the server has agreed to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Details(Details):
    """Of the first request: whether its content type is `application/grpc…`, and whether it is a
    CONNECT with a `:protocol` (RFC 8441). Where a later request opens a WebSocket, the
    `websocket` layer says so."""

    grpc: bool
    extended_connect: bool


@dataclass(slots=True)
class Http2(Conversation):
    """A connection of HTTP/2 frames, from the client's preface on.

    Inside `http/1` (the h2c upgrade, RFC 7540 §3.2) stream 1 is the answer to the request there.
    """

    name: ClassVar[str] = "http/2"

    up: Directive = MIRROR
    down: Directive = MIRROR
    grpc: bool = False
    extended_connect: bool = False
    _sides: dict[Direction, _Side] = field(
        default_factory=lambda: {direction: _Side() for direction in Direction}
    )
    _streams: dict[int, _Stream] = field(default_factory=dict)
    _has_sockets: bool = False

    def __post_init__(self) -> None:
        if self.context.stack[-1:] == ("http/1",):
            self._open(1).request_done = True
            for side in self._sides.values():  # the upgrade carried SETTINGS that nobody has read
                side.decoder.max_allowed_table_size = MAX_TABLE

    def feed(self, direction: Direction, data: bytes) -> int:
        self.named.clear()
        side = self._sides[direction]
        side.kept = self._read(direction, side, side.kept + data)
        return len(data)

    def _read(self, direction: Direction, side: _Side, data: bytes) -> bytes:
        """Read all frames that are whole; what is left over."""
        at = 0 if side.has_preface else self._begin(direction, side, data)
        while side.has_preface:
            passing = min(side.skip, len(data) - at)
            if side.stream:
                self._read_socket(direction, side, side.stream, data[at : at + passing])
            side.skip -= passing
            if side.skip:
                return b""
            at += passing
            if side.ends is not None:
                self._end_half(direction, side.ends)
                side.ends = None
            taken = self._frame(direction, side, data, at)
            if not taken:
                break
            at += taken
        return data[at:]

    def close(self) -> None:
        for stream in list(self._streams):
            self._close(stream, "cut")

    @property
    def memory(self) -> int:
        held = _STREAM_BYTES * len(self._streams)
        for side in self._sides.values():
            table = side.decoder.header_table
            if entries := len(table.dynamic_entries):
                held += table.maxsize + _ENTRY_BYTES * entries
        return held

    def details(self) -> Http2Details:
        return Http2Details(grpc=self.grpc, extended_connect=self.extended_connect)

    def _begin(self, direction: Direction, side: _Side, data: bytes) -> int:
        """Check what each side begins with (RFC 9113 §3.4): where the frames begin, or 0."""
        preface = PREFACE if direction is UP else b""
        if not data.startswith(preface[: len(data)]):
            raise ProtocolError("HTTP/2: no preface")
        if len(data) < len(preface) + _HEADER_SIZE:
            return 0
        _, _, kind, flags, stream = _HEADER.unpack_from(data, len(preface))
        if (kind, flags, stream) != (_SETTINGS, 0, 0):
            raise ProtocolError("HTTP/2: does not begin with SETTINGS")
        side.has_preface = True
        return len(preface)

    def _frame(self, direction: Direction, side: _Side, data: bytes, at: int) -> int:
        """Read the frame at `at`; how many of its bytes are done with, 0 while it is not whole."""
        have = len(data) - at
        if have < _HEADER_SIZE:
            return 0
        high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
        length: int = high << 8 | low
        stream &= _STREAM
        if side.block and (kind != _CONTINUATION or stream != side.block.on_stream):
            raise ProtocolError("HTTP/2: a header block is interrupted")
        if kind in _PARSED:
            if length > MAX_HEADER_BLOCK:
                raise ProtocolError("HTTP/2: a frame longer than 64 KiB that is no DATA")
            size = _HEADER_SIZE + length
            if have < size:
                return 0
            payload = data[at + _HEADER_SIZE : at + size]
            if kind == _SETTINGS:
                self._settings(direction, flags, payload)
            elif kind == _GOAWAY:
                self._go_away(direction, payload)
            else:
                self._fragment(direction, side, _Frame(kind, flags, stream, payload))
            return size
        size = _HEADER_SIZE
        side.stream = None
        if kind == _DATA:
            padding = 0
            if flags & _PADDED and length:
                if have == _HEADER_SIZE:
                    return 0
                padding = 1 + data[at + _HEADER_SIZE]
                size += 1
            side.content = length - padding
            side.stream = self._count(direction, stream, side.content)
            side.ends = stream if flags & _END_STREAM else None
        elif kind == _RST_STREAM and length == _RST_SIZE:
            if have < _HEADER_SIZE + _RST_SIZE:
                return 0
            (code,) = _ERROR_CODE.unpack_from(data, at + _HEADER_SIZE)
            self._close(stream, "reset", code)
        side.skip = _HEADER_SIZE + length - size
        return size

    def _settings(self, direction: Direction, flags: int, payload: bytes) -> None:
        """How large a table the other side's encoder may use.

        What is taken back later counts once it is acknowledged; until then the larger one holds.
        """
        if flags & _ACK or len(payload) % _SETTING.size:
            return
        decoder = self._sides[direction.other].decoder
        for setting, value in _SETTING.iter_unpack(payload):
            if setting == _HEADER_TABLE_SIZE:
                allowed = max(decoder.max_allowed_table_size, value)
                decoder.max_allowed_table_size = min(allowed, MAX_TABLE)

    def _fragment(self, direction: Direction, side: _Side, frame: _Frame) -> None:
        """A frame that carries a header block, or a part of it (RFC 9113 §4.3)."""
        if frame.kind == _CONTINUATION:
            fragment = frame.payload
        else:
            fragment = frame.unpadded
            about = frame.stream
            if frame.kind == _PUSH_PROMISE:
                about = int.from_bytes(fragment[:_PROMISED_SIZE], "big") & _STREAM
                fragment = fragment[_PROMISED_SIZE:]
            elif frame.flags & _PRIORITY:
                fragment = fragment[_PRIORITY_SIZE:]
            is_in_place = frame.stream and (frame.kind == _HEADERS or direction is DOWN)
            ends = frame.kind == _HEADERS and bool(frame.flags & _END_STREAM)
            side.block = _Block(frame.stream, about, ends) if is_in_place else None
        block = side.block
        if block is None:
            raise ProtocolError("HTTP/2: part of a header block out of place")
        block.fragments += fragment
        if len(block.fragments) > MAX_HEADER_BLOCK:
            raise ProtocolError("HTTP/2: a header block longer than 64 KiB")
        if frame.flags & _END_HEADERS:
            side.block = None
            self._headers(direction, block)

    def _headers(self, direction: Direction, block: _Block) -> None:
        """A header block is whole: a request, a response, or trailers."""
        try:
            fields = self._sides[direction].decoder.decode(bytes(block.fragments), raw=True)
        except HPACKError as error:
            raise ProtocolError(f"HTTP/2: {error}") from error
        headers = [(bytes(name), bytes(value)) for name, value in fields]
        named = dict(headers)
        promised = block.about_stream != block.on_stream
        if direction is UP:
            self.named += of_headers(headers, self.context)
        if b":method" in named and (direction is UP or promised):
            self._request(block.about_stream, headers, named, promised=promised)
        elif b":status" in named and direction is DOWN and not promised:
            self._response(block.about_stream, headers, named)
        else:
            self._trailers(direction, block.about_stream, headers)
        self.details_ready = True
        if block.ends_stream:
            self._end_half(direction, block.about_stream)

    def _request(
        self, stream: int, headers: HeaderFields, named: Mapping[bytes, bytes], *, promised: bool
    ) -> None:
        exchange = self._open(stream)
        exchange.request_done = promised
        protocol = named.get(b":protocol", b"").lower()
        exchange.asks_for_socket = UPGRADES.get(protocol) == WebSocket.name
        self.extended_connect = self.extended_connect or b":protocol" in named
        self.protocol_events.append(
            HttpRequest(
                stream=stream,
                method=text(named[b":method"]),
                url=self._url(named),
                version="HTTP/2",
                content_type=self._content_type(named),
                headers=shown(self.context, headers),
            )
        )

    def _response(self, stream: int, headers: HeaderFields, named: Mapping[bytes, bytes]) -> None:
        status = named[b":status"]
        if _STATUS.fullmatch(status) is None:
            raise ProtocolError("HTTP/2: a status that is no number")
        self.protocol_events.append(
            HttpResponse(
                stream=stream,
                status=int(status),
                version="HTTP/2",
                content_type=self._content_type(named),
                headers=shown(self.context, headers),
            )
        )
        exchange = self._streams.get(stream)
        if exchange and b"grpc-status" in named:  # gRPC's Trailers-Only: one block is both
            exchange.trailers = _kept(each for each in headers if each[0].startswith(b"grpc-"))
        if exchange and exchange.asks_for_socket and status[:1] == b"2":
            exchange.socket = WebSocket()
            if not self._has_sockets:
                self.protocol_events.append(StreamLayer(protocol=WebSocket.name))
            self._has_sockets = True
        if exchange and status[:1] != b"1":
            exchange.asks_for_socket = False

    def _trailers(self, direction: Direction, stream: int, headers: HeaderFields) -> None:
        """A header block behind the content (RFC 9113 §8.1)."""
        exchange = self._streams.get(stream)
        if exchange is None:
            return
        if direction is UP:
            exchange.request_trailers = _kept(headers)
        else:
            exchange.trailers = _kept(headers)

    def _read_socket(
        self, direction: Direction, side: _Side, stream: _Stream, payload: bytes
    ) -> None:
        """What came of a DATA frame, which carries a WebSocket's bytes and then padding."""
        content = payload[: side.content]
        side.content -= len(content)
        if stream.socket is None:
            return
        try:
            stream.socket.feed(direction, content)
        except ProtocolError:
            stream.socket = None  # whatever this stream carries, the others go on
            return
        for protocol_event in stream.socket.protocol_events:
            assert isinstance(protocol_event, WebSocketMessage)
            self.protocol_events.append(replace(protocol_event, stream=stream.stream))
        stream.socket.protocol_events.clear()

    def _url(self, named: Mapping[bytes, bytes]) -> str:
        """The target URI (RFC 9113 §8.3.1); of an ordinary CONNECT its authority (§8.5)."""
        authority = named.get(b":authority") or named.get(b"host")
        path = named.get(b":path")
        if path is None:
            return text(authority or b"")
        scheme = named.get(b":scheme")
        start = text(scheme + b"://" + authority) if scheme and authority else None
        return (start or origin(self.context, authority)) + text(path).removeprefix("*")

    def _content_type(self, named: Mapping[bytes, bytes]) -> str | None:
        value = named.get(b"content-type")
        if value is None:
            return None
        self.grpc = self.grpc or value.startswith(b"application/grpc")
        return text(value)

    def _open(self, stream: int) -> _Stream:
        self._close(stream, "cut")
        if len(self._streams) >= MAX_STREAMS:
            self._close(next(iter(self._streams)), "cut")
        exchange = self._streams[stream] = _Stream(stream, self.context.clock())
        return exchange

    def _count(self, direction: Direction, stream: int, size: int) -> _Stream | None:
        """`size` bytes of content come in a stream, which is given where they are looked at."""
        if size < 0:
            raise ProtocolError("HTTP/2: padding longer than its frame")
        exchange = self._streams.get(stream)
        if exchange is None:
            return None
        if direction is UP:
            exchange.request_bytes += size
        else:
            exchange.response_bytes += size
        return exchange if exchange.socket else None

    def _end_half(self, direction: Direction, stream: int) -> None:
        """END_STREAM was seen in a direction."""
        exchange = self._streams.get(stream)
        if exchange is None:
            return
        if direction is UP:
            exchange.request_done = True
        else:
            exchange.response_done = True
        if exchange.request_done and exchange.response_done:
            self._close(stream)

    def _close(self, stream: int, outcome: Outcome = "complete", code: int | None = None) -> None:
        """A stream is over, one way or another; `code`: the error that ended it (RFC 9113 §7)."""
        exchange = self._streams.pop(stream, None)
        if exchange is not None:
            reset_code = None if code is None else _error_name(code)
            self.protocol_events.append(
                exchange.end(self.context.clock(), outcome, reset_code=reset_code)
            )

    def _go_away(self, direction: Direction, payload: bytes) -> None:
        """The other side's streams above the last one named will not be served (RFC 9113 §6.8)."""
        if len(payload) < _GOING_AWAY.size:
            raise ProtocolError("HTTP/2: a short GOAWAY")
        last, code = _GOING_AWAY.unpack_from(payload)
        last &= _STREAM
        parity = 1 if direction is DOWN else 0
        for stream in [item for item in self._streams if item > last and item % 2 == parity]:
            self._close(stream, "reset", code)


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> HeaderFields:
    trailers = Trailers()
    for name, value in headers:
        trailers.add(name, value)
    return trailers.fields


def _error_name(code: int) -> str:
    return _ERRORS[code] if code < len(_ERRORS) else f"0x{code:x}"


PROTOCOL: Final = Protocol(
    name="http/2",
    detect=detect,
    converse=lambda context: Http2(context=context),
    events=(HttpRequest, HttpResponse, HttpEnd, WebSocketMessage),
    client_first=b"P",
    server_first=b"\0",
    conclusive=True,
)
