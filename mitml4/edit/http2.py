"""The frames of an HTTP/2 connection of which some messages are edited (RFC 9113).

Frames of streams that are not edited pass as they came, and so do PING, PRIORITY, SETTINGS and
GOAWAY. Each request and each response is held at its head until the editor has been asked: a `Job`.

Header blocks pass as they came until the first one of a direction is changed. From then on all
blocks of that direction are encoded anew, with a table that begins empty; their order and what is
never to be indexed stay.

Flow control. What passes counts at both sides alike, so WINDOW_UPDATE passes too. What is held back
for the editor is credited to its sender at once: `credited`. What is sent of that, or of our own,
takes from the receiver's windows without the sender's knowing, so as much of the receiver's next
WINDOW_UPDATEs is kept back: `swallow`. Where the windows are too small meanwhile, content waits in
the stream's queue, uncredited, so that its sender stops.

A request that goes on after a later one gets another number (`_Numbers`), since the numbers of
streams have to grow. A request that is answered here never has one at the server.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import Final, Literal

from hpack import Decoder, Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple

from mitml4.dataclass import dataclass
from mitml4.edit.codings import body_bytes, content_codings, decoded
from mitml4.edit.headers import Field, Headers
from mitml4.edit.memory import EditMemory
from mitml4.edit.messages import Request, Response
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.http2_frames import MAX_HEADER_BLOCK, MAX_TABLE, PREFACE

__all__ = ["CANCEL", "INTERNAL_ERROR", "Half", "Http2Core", "Job", "Stream", "half_headers"]

UP, DOWN = Direction.UP, Direction.DOWN

CANCEL: Final = 8  # RFC 9113 §7
INTERNAL_ERROR: Final = 2

_HEADER: Final = struct.Struct(">HBBBL")
_SETTING: Final = struct.Struct(">HL")
_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE = 0, 1, 2, 3, 4, 5
_GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_ID: Final = 0x7FFFFFFF
_OF_HTTP_1: Final = (b"connection", b"keep-alive", b"proxy-connection", b"upgrade")
"""§8.2.2: a message with one of these is malformed."""
_PIECE: Final = 16384
"""RFC 9113 §4.2: every receiver takes frames of this size."""
_WINDOW: Final = 65535
_OUR_TABLE: Final = 4096
_MAX_STREAMS: Final = 20_000


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


@dataclass(slots=True)
class _Block:
    """A header block as it came."""

    kind: int
    flags: int
    stream: int
    prefix: bytes
    """Priority, or the promised stream."""
    frames: list[tuple[int, int, bytes]]
    """Kind, flags and payload of each frame."""
    fragments: bytearray
    headers: Sequence[HeaderTuple] = ()
    order: int = -1
    """How many blocks came before it in its direction; -1: it is ours."""

    @property
    def ends(self) -> bool:
        return bool(self.kind == _HEADERS and self.flags & _END_STREAM)


@dataclass(slots=True)
class Half:
    """One direction of a stream."""

    head: _Block | None = None
    """The head that is held back, or was."""
    is_held: bool = False
    """The editor has not let it go yet."""
    is_collecting: bool = False
    """The editor wants the whole body."""
    collected: int = 0
    """Bytes that have come while it was collected."""
    is_above: bool = False
    """The body is above the limit."""
    was_asked: bool = False
    has_ended: bool = False
    """Its source has ended it."""
    is_dropped: bool = False
    """Nothing of it goes on."""
    queue: bytearray = field(default_factory=bytearray)
    """Content that waits."""
    credited: int = 0
    """So many bytes of the queue were credited to their source."""
    trailers: _Block | None = None
    is_over: bool = False
    """Its end was sent."""
    window: int = 0
    """What the receiver takes."""
    swallow: int = 0
    rate: float | None = None
    allowance: int = 0
    """With a rate: how many bytes may be sent now."""
    content: bytes | None = None
    """The decoded body, as it was handed over."""


@dataclass(slots=True)
class Stream:
    """A stream that is open."""

    number: int
    """The client's."""
    up: Half
    down: Half
    request: Request | None = None
    response: Response | None = None
    is_local: bool = False
    """The server does not know it."""
    is_pushed: bool = False
    early_updates: int = 0
    """WINDOW_UPDATE of the client before the server knows the stream."""

    def half(self, direction: Direction) -> Half:
        return self.up if direction is UP else self.down


@dataclass(frozen=True, slots=True)
class Job:
    """The editor has to be asked about a message whose head, or whose body, is there."""

    phase: Literal["request", "response"]
    stream: Stream


class _Leg:
    """One direction of the connection."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.data = bytearray()
        self.out = bytearray()
        self.decoder = Decoder(max_header_list_size=MAX_HEADER_BLOCK)
        self.encoder: Encoder | None = None
        self.table_limit = _OUR_TABLE
        """The largest table of the receiver's decoder."""
        self.block: _Block | None = None
        self.blocks = 0
        """How many blocks have come."""
        self.passed = 0
        """How many have passed as they came. A block can do so only if all before it have: else the
        receiver's table lacks what they would have added."""
        self.window = _WINDOW
        """What the receiver takes on the connection."""
        self.waiting: dict[int, Stream] = {}
        """The streams whose content waits for windows."""
        self.swallow = 0
        self.initial_window = _WINDOW
        self.has_preface = direction is DOWN
        self.has_begun = False
        """Whether the first SETTINGS have passed; nothing goes before them (§3.4)."""


class Http2Core:
    """Both directions of a connection. Bytes go in by `receive`, and come out in `out`."""

    def __init__(self, limit: int, memory: EditMemory) -> None:
        """`limit`: bytes of bodies that are held back at a time; `memory`: those of the session."""
        self._memory = memory
        self._legs = {direction: _Leg(direction) for direction in Direction}
        self.streams: dict[int, Stream] = {}
        self._limit = limit
        self._collected = 0
        """Of all streams together."""
        self.jobs: list[Job] = []
        self._to_server: dict[int, int] = {}
        self._to_client: dict[int, int] = {}
        self._last_sent = 0

    def is_idle(self, direction: Direction) -> bool:
        """Whether nothing of a direction is held back, or waits for windows."""
        halves = (stream.half(direction) for stream in self.streams.values())
        return not any(half.is_held or half.queue for half in halves)

    def take(self, direction: Direction) -> bytes:
        """What is to be sent now."""
        leg = self._legs[direction]
        if not leg.has_begun:
            return b""
        out = leg.out
        taken = bytes(out)
        out.clear()
        return taken

    def waiting(self, direction: Direction) -> int:
        return len(self._legs[direction].out)

    # What comes

    def receive(self, direction: Direction, data: bytes) -> None:
        """Take the next bytes of a direction. Raises ProtocolError."""
        leg = self._legs[direction]
        leg.data += data
        if not leg.has_preface:
            if not leg.data.startswith(PREFACE[: len(leg.data)]):
                raise ProtocolError("HTTP/2: no preface")
            if len(leg.data) < len(PREFACE):
                return
            del leg.data[: len(PREFACE)]
            leg.has_preface = True
        at = 0
        while len(leg.data) - at >= _HEADER.size:
            high, low, kind, flags, number = _HEADER.unpack_from(leg.data, at)
            size = high << 8 | low
            end = at + _HEADER.size + size
            if len(leg.data) < end:
                break
            payload = bytes(leg.data[at + _HEADER.size : end])
            at = end
            self._on_frame(leg, kind, flags, number & _ID, payload)
        del leg.data[:at]

    def _on_frame(self, leg: _Leg, kind: int, flags: int, number: int, payload: bytes) -> None:
        if leg.block and (kind != _CONTINUATION or number != leg.block.stream):
            raise ProtocolError("HTTP/2: a header block is interrupted")
        match kind:
            case _ if kind in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
                self._on_fragment(leg, kind, flags, number, payload)
            case _ if kind == _DATA:
                self._on_data(leg, flags, number, payload)
            case _ if kind == _WINDOW_UPDATE and len(payload) == 4:
                self._on_window_update(leg, number, int.from_bytes(payload) & _ID)
            case _ if kind == _RST_STREAM:
                self._on_reset(leg, number, payload)
            case _ if kind == _SETTINGS:
                if not flags & _ACK:
                    self._on_settings(leg, payload)
                frame = _frame(kind, flags, number, payload)
                if leg.has_begun:
                    leg.out += frame
                else:
                    leg.has_begun = True
                    leg.out[:0] = PREFACE + frame if leg.direction is UP else frame
            case _ if kind == _GOAWAY and leg.direction is DOWN and len(payload) >= 8:
                last = int.from_bytes(payload[:4]) & _ID
                leg.out += _frame(kind, flags, 0, self._last(last).to_bytes(4) + payload[4:])
            case _ if kind == _PRIORITY:
                self._on_priority(leg, flags, number, payload)
            case _:
                leg.out += _frame(kind, flags, self._there(leg, number), payload)

    def _on_priority(self, leg: _Leg, flags: int, number: int, payload: bytes) -> None:
        """Priorities name streams, which may have other numbers at the server. They are advice, so
        one that names such a stream is left out."""
        about = int.from_bytes(payload[:4]) & _ID
        is_elsewhere = bool(self._to_server) or any(
            stream.is_local or stream.up.is_held
            for each in (number, about)
            if (stream := self.streams.get(each))
        )
        if not is_elsewhere:
            leg.out += _frame(_PRIORITY, flags, number, payload)

    def _on_settings(self, leg: _Leg, payload: bytes) -> None:
        """Settings are about what is sent to their sender."""
        towards = self._legs[leg.direction.other]
        if len(payload) % _SETTING.size:
            raise ProtocolError("HTTP/2: SETTINGS of a wrong length")
        for setting, value in _SETTING.iter_unpack(payload):
            if setting == _HEADER_TABLE_SIZE:
                allowed = max(towards.decoder.max_allowed_table_size, value)
                towards.decoder.max_allowed_table_size = min(allowed, MAX_TABLE)
                towards.table_limit = value
                if towards.encoder:
                    towards.encoder.header_table_size = min(_OUR_TABLE, value)
            elif setting == _INITIAL_WINDOW_SIZE:
                change = value - towards.initial_window
                towards.initial_window = value
                for stream in self.streams.values():
                    stream.half(towards.direction).window += change
        self._pump_all(towards.direction)

    # Header blocks

    def _on_fragment(self, leg: _Leg, kind: int, flags: int, number: int, payload: bytes) -> None:
        fragment, prefix = payload, b""
        if kind != _CONTINUATION:
            if flags & _PADDED:
                if not payload or payload[0] >= len(payload):
                    raise ProtocolError("HTTP/2: padding longer than its frame")
                fragment = payload[1 : len(payload) - payload[0]]
            size = 4 if kind == _PUSH_PROMISE else 5 if flags & _HAS_PRIORITY else 0
            prefix, fragment = fragment[:size], fragment[size:]
            leg.block = _Block(kind, flags, number, prefix, [], bytearray())
        block = leg.block
        if block is None or not number:
            raise ProtocolError("HTTP/2: a header block in a wrong place")
        block.frames.append((kind, flags, payload))
        block.fragments += fragment
        if len(block.fragments) > MAX_HEADER_BLOCK:
            raise ProtocolError("HTTP/2: a header block longer than 64 KiB")
        if flags & _END_HEADERS:
            leg.block = None
            try:
                decoded_block = leg.decoder.decode(bytes(block.fragments), raw=True)
            except HPACKError as error:
                raise ProtocolError(f"HTTP/2: {error}") from error
            block.headers = list(decoded_block)
            block.order = leg.blocks
            leg.blocks += 1
            self._on_block(leg, block)

    def _on_block(self, leg: _Leg, block: _Block) -> None:
        if block.kind == _PUSH_PROMISE:
            self._on_promise(leg, block)
            return
        number = self._here(leg, block.stream)
        stream = self.streams.get(number)
        if stream is None:
            if leg.direction is DOWN:
                return  # it was reset here
            if len(self.streams) >= _MAX_STREAMS:
                raise ProtocolError(f"HTTP/2: more than {_MAX_STREAMS} streams")
            stream = self.streams[number] = Stream(
                number,
                Half(window=self._legs[UP].initial_window),
                Half(window=self._legs[DOWN].initial_window),
            )
        half = stream.half(leg.direction)
        status = dict(block.headers).get(b":status", b"")
        if half.head is not None:
            self._on_trailers(stream, half, leg, block)
        elif status.startswith(b"1") and not block.ends:
            self._send_block(leg, block, self._there_of(leg, number))
        else:
            half.head, half.is_held, half.has_ended = block, not stream.is_pushed, block.ends
            if stream.is_pushed:
                self._release(stream, leg.direction)
                return
            phase: Literal["request", "response"] = "response"
            if leg.direction is UP:
                phase, stream.request = "request", _request(number, block)
            else:
                stream.response = _response(block)
            self.jobs.append(Job(phase, stream))

    def _on_promise(self, leg: _Leg, block: _Block) -> None:
        """A pushed stream passes as it is."""
        promised = int.from_bytes(block.prefix) & _ID
        if leg.direction is UP or len(block.prefix) < 4:
            raise ProtocolError("HTTP/2: a PUSH_PROMISE in a wrong place")
        self.streams[promised] = Stream(
            promised,
            Half(has_ended=True, is_over=True),
            Half(window=self._legs[DOWN].initial_window),
            is_pushed=True,
        )
        if self._here(leg, block.stream) in self.streams:
            self._send_block(leg, block, self._here(leg, block.stream))

    def _on_trailers(self, stream: Stream, half: Half, leg: _Leg, block: _Block) -> None:
        half.has_ended = half.has_ended or block.ends
        half.trailers = block
        self._went_on(stream, leg.direction)

    # Content

    def _on_data(self, leg: _Leg, flags: int, number: int, payload: bytes) -> None:
        content = payload
        if flags & _PADDED:
            if not payload or payload[0] >= len(payload):
                raise ProtocolError("HTTP/2: padding longer than its frame")
            content = payload[1 : len(payload) - payload[0]]
        here = self._here(leg, number)
        stream = self.streams.get(here)
        size = len(payload)
        if stream is None or stream.half(leg.direction).is_dropped:
            self._credit(leg, None, size)
            if stream:
                self._credit_stream(leg, here, size)
                half = stream.half(leg.direction)
                half.has_ended = half.has_ended or bool(flags & _END_STREAM)
                self._forget_if_over(stream)
            return
        half = stream.half(leg.direction)
        half.has_ended = half.has_ended or bool(flags & _END_STREAM)
        passes = not (half.is_held or half.queue or half.rate) and half.trailers is None
        if passes and min(leg.window, half.window) >= size:
            leg.window -= size
            half.window -= size
            leg.out += _frame(_DATA, flags, self._there_of(leg, here), payload)
            half.is_over = half.has_ended
            self._forget_if_over(stream)
            return
        if size > len(content):  # nobody gets the padding
            self._credit(leg, here, size - len(content))
        half.queue += content
        if half.is_collecting:
            self._collect_more(half, len(content))
            self._credit_all(leg, here, half)
        self._went_on(stream, leg.direction)

    def _went_on(self, stream: Stream, direction: Direction) -> None:
        """More has come of a half that is held back, or waits for windows."""
        half = stream.half(direction)
        if not half.is_held:
            self._pump(stream, direction)
        elif half.is_collecting and (half.has_ended or half.is_above):
            half.is_collecting = False
            self.jobs.append(Job("request" if direction is UP else "response", stream))

    def collect(self, stream: Stream, direction: Direction) -> bool:
        """The editor wants the whole body. Returns whether it is there; else a job says so, or that
        it is above the limit."""
        half = stream.half(direction)
        half.was_asked = True
        if half.has_ended:
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

    # What the editor has decided

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
        changed = _changed(block, message) if message else None
        number = stream.number
        if direction is UP:
            number = self._number_for(stream)
        ends = half.has_ended and not half.queue and half.trailers is None
        self._send_block(leg, block, number, changed, ends=ends)
        half.is_over = ends
        if direction is UP and stream.early_updates:
            self._legs[UP].out += _frame(
                _WINDOW_UPDATE, 0, number, stream.early_updates.to_bytes(4)
            )
        self._pump(stream, direction)
        self._forget_if_over(stream)

    def answer(self, stream: Stream, response: Response) -> None:
        """Answer a request instead of the server."""
        if self.streams.get(stream.number) is not stream:
            return
        stream.is_local = True
        self._drop(stream, UP)
        down, leg = stream.down, self._legs[DOWN]
        has_body = stream.request is None or stream.request.method != "HEAD"
        body = response.body or b""
        headers = response.headers
        for name in ("connection", "transfer-encoding", "keep-alive"):
            headers.discard(name)
        if response.status not in (204, 304):
            headers["content-length"] = str(len(body))
        fields = [
            HeaderTuple(b":status", b"%d" % response.status),
            *(HeaderTuple(each.name.lower(), each.value) for each in headers.fields),
        ]
        block = _Block(_HEADERS, 0, stream.number, b"", [], bytearray(), fields)
        down.head, down.has_ended = block, True
        down.queue[:] = body if has_body else b""
        down.credited, down.rate = len(down.queue), response.rate
        self._count_queue(down)
        ends = not down.queue
        self._send_block(leg, block, stream.number, fields, ends=ends)
        down.is_over = ends
        self._pump(stream, DOWN)
        self._forget_if_over(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """Reset a stream at both sides."""
        if self.streams.get(stream.number) is not stream:
            return
        payload = code.to_bytes(4)
        self._legs[DOWN].out += _frame(_RST_STREAM, 0, stream.number, payload)
        if not stream.up.is_held and not stream.is_local:
            number = self._to_server.get(stream.number, stream.number)
            self._legs[UP].out += _frame(_RST_STREAM, 0, number, payload)
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

    # What is sent

    def _send_block(
        self,
        leg: _Leg,
        block: _Block,
        number: int,
        changed: Sequence[HeaderTuple] | None = None,
        *,
        ends: bool | None = None,
    ) -> None:
        """Send a block, as it came unless it is changed, or another one was before it."""
        ends = block.ends if ends is None else ends
        if changed is None and leg.encoder is None and block.order == leg.passed:
            leg.passed += 1
            for at, (kind, flags, payload) in enumerate(block.frames):
                if not at and kind == _HEADERS:  # the end may come with content, or without
                    flags = flags & ~_END_STREAM | ends
                leg.out += _frame(kind, flags, number, payload)
            return
        leg.encoder = leg.encoder or _fresh_encoder(leg.table_limit)
        data = block.prefix + leg.encoder.encode(block.headers if changed is None else changed)
        flags = block.flags & _HAS_PRIORITY | (_END_STREAM if ends else 0)
        kind = block.kind
        pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)] or [b""]
        for at, piece in enumerate(pieces):
            is_last = at == len(pieces) - 1
            leg.out += _frame(kind, flags | (_END_HEADERS if is_last else 0), number, piece)
            kind, flags = _CONTINUATION, 0

    def _pump_all(self, direction: Direction) -> None:
        leg = self._legs[direction]
        for stream in list(leg.waiting.values()):
            if leg.window <= 0:
                return
            self._pump(stream, direction)

    def _pump(self, stream: Stream, direction: Direction) -> None:
        """Send what the windows allow of what waits."""
        half, leg = stream.half(direction), self._legs[direction]
        if half.is_held or half.is_over or half.head is None:
            return
        number = self._there_of(leg, stream.number)
        while half.queue:
            count = min(len(half.queue), _PIECE, leg.window, half.window)
            if half.rate:
                count = min(count, half.allowance)
            if count <= 0:
                leg.waiting[stream.number] = stream
                return
            piece = bytes(half.queue[:count])
            del half.queue[:count]
            ends = half.has_ended and not half.queue and half.trailers is None
            leg.out += _frame(_DATA, _END_STREAM if ends else 0, number, piece)
            leg.window -= count
            half.window -= count
            half.allowance -= min(count, half.allowance)
            credited = min(count, half.credited)
            half.credited -= credited
            half.swallow += credited
            leg.swallow += credited
            half.is_over = ends
        leg.waiting.pop(stream.number, None)
        self._count_queue(half)
        if half.has_ended and not half.is_over:
            if half.trailers:
                self._send_block(leg, half.trailers, number)
            else:
                leg.out += _frame(_DATA, _END_STREAM, number)
            half.is_over = True
        self._forget_if_over(stream)

    def _on_window_update(self, leg: _Leg, number: int, count: int) -> None:
        """The receiver of the other direction takes more."""
        towards = self._legs[leg.direction.other]
        if not number:
            towards.window += count
            kept = min(count, towards.swallow)
            towards.swallow -= kept
            if count > kept:
                leg.out += _frame(_WINDOW_UPDATE, 0, 0, (count - kept).to_bytes(4))
            self._pump_all(towards.direction)
            return
        here = self._here(leg, number)
        stream = self.streams.get(here)
        if stream is None:
            return
        half = stream.half(towards.direction)
        half.window += count
        kept = min(count, half.swallow)
        half.swallow -= kept
        left = count - kept
        if left and leg.direction is UP and (stream.is_local or stream.up.is_held):
            stream.early_updates += left
        elif left and not half.has_ended:
            leg.out += _frame(_WINDOW_UPDATE, 0, self._there_of(leg, here), left.to_bytes(4))
        self._pump(stream, towards.direction)

    def _credit(self, leg: _Leg, number: int | None, count: int) -> None:
        """Let the source of a leg send so many bytes more."""
        if count:
            back = self._legs[leg.direction.other].out
            back += _frame(_WINDOW_UPDATE, 0, 0, count.to_bytes(4))
            if number is not None:
                self._credit_stream(leg, number, count)

    def _credit_stream(self, leg: _Leg, number: int, count: int) -> None:
        stream = self.streams.get(number)
        if count and stream and not stream.half(leg.direction).has_ended:
            back = self._legs[leg.direction.other]
            there = self._there_of(back, number)
            back.out += _frame(_WINDOW_UPDATE, 0, there, count.to_bytes(4))

    def _credit_all(self, leg: _Leg, number: int, half: Half) -> None:
        """Credit what waits in a queue."""
        self._credit(leg, number, len(half.queue) - half.credited)
        half.credited = len(half.queue)

    # The ends of streams

    def _on_reset(self, leg: _Leg, number: int, payload: bytes) -> None:
        here = self._here(leg, number)
        stream = self.streams.get(here)
        if stream is None:
            return
        is_known = not (stream.is_local or (leg.direction is UP and stream.up.is_held))
        if is_known:
            leg.out += _frame(_RST_STREAM, 0, self._there_of(leg, here), payload)
        self._forget(stream)

    def _drop(self, stream: Stream, direction: Direction) -> None:
        half = stream.half(direction)
        self._credit_all(self._legs[direction], stream.number, half)
        half.queue.clear()
        half.credited = 0
        self._collect_no_more(half)
        half.is_dropped, half.is_held = True, False
        self._legs[direction].waiting.pop(stream.number, None)

    def _forget_if_over(self, stream: Stream) -> None:
        up_is_over = stream.up.is_over or (stream.up.is_dropped and stream.up.has_ended)
        if up_is_over and stream.down.is_over:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self.streams.pop(stream.number, None) is None:
            return
        for direction in Direction:
            half, leg = stream.half(direction), self._legs[direction]
            self._credit(leg, None, len(half.queue) - half.credited)
            half.queue.clear()
            leg.waiting.pop(stream.number, None)
            self._collect_no_more(half)
        if there := self._to_server.pop(stream.number, None):
            self._to_client.pop(there, None)

    def _collect_more(self, half: Half, count: int) -> None:
        if not self._memory.take(count):
            half.is_above = True
            return
        half.collected += count
        self._collected += count
        half.is_above = half.is_above or self._collected > self._limit

    def _collect_no_more(self, half: Half) -> None:
        self._memory.give_back(half.collected)
        self._collected -= half.collected
        half.collected, half.is_collecting = 0, False

    def _count_queue(self, half: Half) -> None:
        """What waits to be sent counts, whether there is room or not."""
        change = half.credited - half.collected
        half.collected += change
        self._collected += change
        self._memory.give_back(-change)

    def close(self) -> None:
        """The connection is over: give back what is held."""
        for stream in self.streams.values():
            self._collect_no_more(stream.up)
            self._collect_no_more(stream.down)

    # Numbers of streams

    def _number_for(self, stream: Stream) -> int:
        """The number of a stream at the server, to which it goes now."""
        number = stream.number
        if number <= self._last_sent:
            number = self._last_sent + 2
            self._to_server[stream.number] = number
            self._to_client[number] = stream.number
        self._last_sent = number
        return number

    def _here(self, leg: _Leg, number: int) -> int:
        """The client's number of a stream that a frame of this leg is about."""
        return self._to_client.get(number, number) if leg.direction is DOWN else number

    def _there(self, leg: _Leg, number: int) -> int:
        return self._there_of(leg, self._here(leg, number))

    def _there_of(self, leg: _Leg, number: int) -> int:
        """The number that a stream has where a leg leads."""
        return self._to_server.get(number, number) if leg.direction is UP else number

    def _last(self, last: int) -> int:
        """The client's number of the last stream that the server has seen."""
        if not self._to_server or last == _ID:
            return last
        seen = [
            number
            for number in self.streams
            if number % 2 and self._to_server.get(number, number) <= last
        ]
        return max(seen, default=last)


def _fresh_encoder(limit: int) -> Encoder:
    """An encoder whose first block empties the receiver's table."""
    encoder = Encoder()
    size = min(_OUR_TABLE, limit)
    encoder.header_table_size = size
    encoder.table_size_changes = [0, size]
    encoder.header_table.resized = True
    return encoder


def half_headers(half: Half) -> Headers:
    """The fields of a head as it came."""
    return Headers(_fields(half.head.headers)) if half.head else Headers()


def _fields(headers: Iterable[HeaderTuple]) -> list[Field]:
    return [
        Field(bytes(each[0]), bytes(each[1]), is_sensitive=not each.indexable)
        for each in headers
        if not each[0].startswith(b":")
    ]


def _request(number: int, block: _Block) -> Request:
    named = {bytes(name): bytes(value).decode("latin-1") for name, value in block.headers}
    return Request(
        method=named.get(b":method", ""),
        scheme=named.get(b":scheme", "https"),
        authority=named.get(b":authority") or named.get(b"host", ""),
        target=named.get(b":path", ""),
        version="HTTP/2",
        headers=Headers(_fields(block.headers)),
        stream=number,
    )


def _response(block: _Block) -> Response:
    status = dict(block.headers).get(b":status", b"")
    if not (status.isdigit() and len(status) == 3):
        raise ProtocolError("HTTP/2: a response without a status")
    return Response(version="HTTP/2", headers=Headers(_fields(block.headers)), status=int(status))


def _changed(block: _Block, message: Request | Response) -> list[HeaderTuple] | None:
    """The fields of a changed head; None: it is as it came."""
    if isinstance(message, Request):
        line = {b":method": message.method, b":path": message.target}
    else:
        line = {b":status": str(message.status)}
    came = [each for each in block.headers if each[0].startswith(b":")]
    pseudo = [
        each
        if (wanted := line.get(bytes(each[0]))) is None or wanted.encode("latin-1") == each[1]
        else type(each)(each[0], wanted.encode("latin-1"))
        for each in came
    ]
    if pseudo == came and not message.headers.is_changed:
        return None
    fields = [each for each in message.headers.fields if each.name.lower() not in _OF_HTTP_1]
    host = next((each.value for each in fields if each.name.lower() == b"host"), None)
    named = [bytes(name) for name, _ in pseudo]
    if host is not None and b":authority" in named:  # they have to be the same (§8.3.1)
        pseudo[named.index(b":authority")] = HeaderTuple(b":authority", host)
        if all(name != b"host" for name, _ in block.headers):
            fields = [each for each in fields if each.name.lower() != b"host"]
    return [*pseudo, *map(_tuple, fields)]


def _tuple(each: Field) -> HeaderTuple:
    kind = NeverIndexedHeaderTuple if each.is_sensitive else HeaderTuple
    return kind(each.name.lower(), each.value)
