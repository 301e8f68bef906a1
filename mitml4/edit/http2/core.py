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
the stream's queue, uncredited, so that its sender stops. A larger window holds when the receiver's
SETTINGS were acknowledged: `ReceiverSettings`.

A request that goes on after a later one gets another number (`_number_for`), since the numbers of
streams have to grow. A request that is answered here never has one at the server.
"""

from __future__ import annotations

from typing import Final

from hpack import HPACKError

from mitml4.edit.http2.decisions import Decisions
from mitml4.edit.http2.messages import request_of, response_of
from mitml4.edit.http2.state import OUR_TABLE, Block, Half, Job, Leg, Stream
from mitml4.edit.messages import Request
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_frames import MAX_HEADER_BLOCK, MAX_TABLE
from mitml4.protocols.http.http2_wire import ErrorCode, Http2Error, frame_bytes, unpadded

__all__ = ["Http2Core"]

UP, DOWN = Direction.UP, Direction.DOWN

_NAMES_HOST: Final = {b":authority", b"host", b":path", b":method"}
_MAX_STREAMS: Final = 20_000


class Http2Core(Decisions):
    """Both directions of a connection. Bytes go in by `receive`, and come out in `out`."""

    def receive(self, direction: Direction, data: bytes) -> None:
        """Take the next bytes of a direction. Raises ProtocolError; what a client does wrong is an
        Http2Error."""
        if self.has_failed:
            return
        leg = self._legs[direction]
        leg.data += data
        if not leg.has_preface:
            if not leg.data.startswith(wire.PREFACE[: len(leg.data)]):
                raise Http2Error("no preface")
            if len(leg.data) < len(wire.PREFACE):
                return
            del leg.data[: len(wire.PREFACE)]
            leg.has_preface = True
        at = 0
        while len(leg.data) - at >= wire.HEADER.size:
            high, low, kind, flags, number = wire.HEADER.unpack_from(leg.data, at)
            size = high << 8 | low
            end = at + wire.HEADER.size + size
            if len(leg.data) < end:
                break
            payload = bytes(leg.data[at + wire.HEADER.size : end])
            at = end
            self._on_frame(leg, kind, flags, number & wire.ID, payload)
        del leg.data[:at]

    def _on_frame(self, leg: Leg, kind: int, flags: int, number: int, payload: bytes) -> None:
        if leg.block and (kind != wire.CONTINUATION or number != leg.block.stream):
            raise Http2Error("a header block is interrupted")
        if leg.direction is UP:
            self._conduct.check(kind, flags, number, payload, self.streams.get(number))
        match kind:
            case wire.HEADERS | wire.PUSH_PROMISE | wire.CONTINUATION:
                self._on_fragment(leg, kind, flags, number, payload)
            case wire.DATA:
                self._on_data(leg, flags, number, payload)
            case wire.WINDOW_UPDATE if len(payload) == 4:
                self._on_window_update(leg, number, int.from_bytes(payload) & wire.ID)
            case wire.RST_STREAM:
                self._on_reset(leg, number, payload)
            case wire.SETTINGS:
                if not flags & wire.ACK:
                    self._on_settings(leg, payload)
                frame = frame_bytes(kind, flags, number, payload)
                if leg.has_begun:
                    leg.out += frame
                else:
                    leg.has_begun = True
                    leg.out[:0] = wire.PREFACE + frame if leg.direction is UP else frame
                if flags & wire.ACK:
                    self._on_acknowledged(leg)
            case wire.GOAWAY if leg.direction is DOWN and len(payload) >= 8:
                last = int.from_bytes(payload[:4]) & wire.ID
                leg.out += frame_bytes(kind, flags, 0, self._last(last).to_bytes(4) + payload[4:])
            case wire.PRIORITY:
                self._on_priority(leg, flags, number, payload)
            case _:
                leg.out += frame_bytes(kind, flags, self._there(leg, number), payload)

    def _on_priority(self, leg: Leg, flags: int, number: int, payload: bytes) -> None:
        """Priorities name streams, which may have other numbers at the server. They are advice, so
        one that names such a stream is left out."""
        about = int.from_bytes(payload[:4]) & wire.ID
        is_elsewhere = bool(self._to_server) or any(
            stream.is_local or stream.up.is_held
            for each in (number, about)
            if (stream := self.streams.get(each))
        )
        if not is_elsewhere:
            leg.out += frame_bytes(wire.PRIORITY, flags, number, payload)

    def _on_settings(self, leg: Leg, payload: bytes) -> None:
        """Settings are about what is sent to their sender."""
        towards = self._legs[leg.direction.other]
        if len(payload) % wire.SETTING.size:
            raise Http2Error("SETTINGS of a wrong length", ErrorCode.FRAME_SIZE_ERROR)
        if leg.direction is DOWN:
            self._conduct.on_settings(payload)
        window, values = towards.settings.window, dict(wire.SETTING.iter_unpack(payload))
        towards.settings.on_settings(values)
        if table := values.get(wire.HEADER_TABLE_SIZE):
            allowed = max(towards.decoder.max_allowed_table_size, table)
            towards.decoder.max_allowed_table_size = min(allowed, MAX_TABLE)
        for stream in self.streams.values():
            stream.half(towards.direction).window += towards.settings.window - window
        self._follow_settings(towards)

    def _on_acknowledged(self, leg: Leg) -> None:
        """The source of a leg has acknowledged the receiver's SETTINGS."""
        if leg.direction is UP:
            self._conduct.on_acknowledged()
        leg.settings.on_acknowledged()
        self._follow_settings(leg)

    def _follow_settings(self, leg: Leg) -> None:
        table = min(OUR_TABLE, leg.settings.table)
        if leg.encoder and leg.encoder.header_table_size != table:
            leg.encoder.header_table_size = table
        self._pump_all(leg.direction)

    def begin_upgraded(self, request: Request | None, settings: bytes) -> None:
        """The connection began as HTTP/1: its last request is stream 1, and over (RFC 7540 §3.2).
        `settings`: those that it has named. Raises ProtocolError."""
        up = Half(has_ended=True, is_over=True)
        self.streams[1] = Stream(1, up, Half(window=self._legs[DOWN].settings.window), request)
        self._last_sent = self._conduct.last = 1
        self._on_settings(self._legs[UP], settings)
        self._legs[DOWN].settings.on_acknowledged()  # by the 101 (RFC 7540 §3.2.1)

    # Header blocks

    def _on_fragment(self, leg: Leg, kind: int, flags: int, number: int, payload: bytes) -> None:
        fragment, prefix = payload, b""
        if kind != wire.CONTINUATION:
            fragment = unpadded(flags, payload)
            size = wire.PRIORITY_SIZE if flags & wire.HAS_PRIORITY else 0
            if kind == wire.PUSH_PROMISE:
                size = wire.PROMISED_SIZE
            prefix, fragment = fragment[:size], fragment[size:]
            leg.block = Block(kind, flags, number, prefix, [], bytearray())
        block = leg.block
        if block is None or not number:
            raise Http2Error("a header block in a wrong place")
        block.frames.append((kind, flags, payload))
        block.fragments += fragment
        if len(block.fragments) > MAX_HEADER_BLOCK:
            raise Http2Error("a header block longer than 64 KiB")
        if flags & wire.END_HEADERS:
            leg.block = None
            try:
                decoded_block = leg.decoder.decode(bytes(block.fragments), raw=True)
            except HPACKError as error:
                raise Http2Error(str(error), ErrorCode.COMPRESSION_ERROR) from error
            block.headers = list(decoded_block)
            block.order = leg.blocks
            leg.blocks += 1
            self._on_block(leg, block)

    def _on_block(self, leg: Leg, block: Block) -> None:
        if block.kind == wire.PUSH_PROMISE:
            self._on_promise(leg, block)
            return
        number = self._here(leg, block.stream)
        stream = self.streams.get(number)
        if stream is None:
            if leg.direction is DOWN or number <= self._conduct.last:
                return  # it was reset
            self._conduct.last = number
            if self._has_too_many():
                self._refuse(number)
                return
            if len(self.streams) >= _MAX_STREAMS:
                raise Http2Error(f"more than {_MAX_STREAMS} streams")
            stream = self.streams[number] = Stream(
                number,
                Half(window=self._legs[UP].settings.window),
                Half(window=self._legs[DOWN].settings.window),
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
            if leg.direction is UP:
                stream.request = request_of(number, block)
            else:
                stream.response = response_of(block)
            self.jobs.append(Job(stream, leg.direction))

    def _has_too_many(self) -> bool:
        """Whether the client has as many streams as the server allows."""
        most = self._conduct.max_streams
        if most is None or len(self.streams) < most:
            return False
        return sum(not stream.is_pushed for stream in self.streams.values()) >= most

    def _refuse(self, number: int) -> None:
        """Refuse a stream above the server's limit (RFC 9113 §5.1.2)."""
        self._legs[DOWN].out += frame_bytes(
            wire.RST_STREAM, 0, number, ErrorCode.REFUSED_STREAM.to_bytes(4)
        )
        self._conduct.on_reset(number)

    def _on_promise(self, leg: Leg, block: Block) -> None:
        """A pushed stream passes as it is."""
        self.has_pushed = True
        promised = int.from_bytes(block.prefix) & wire.ID
        if leg.direction is UP or len(block.prefix) < 4:
            raise Http2Error("a PUSH_PROMISE in a wrong place")
        self.streams[promised] = Stream(
            promised,
            Half(has_ended=True, is_over=True),
            Half(window=self._legs[DOWN].settings.window),
            is_pushed=True,
        )
        if self._here(leg, block.stream) in self.streams:
            self._send_block(leg, block, self._here(leg, block.stream))

    def _on_trailers(self, stream: Stream, half: Half, leg: Leg, block: Block) -> None:
        named = {bytes(name).lower() for name, _ in block.headers}
        if self._is_strict and leg.direction is UP and named & _NAMES_HOST:
            raise Http2Error("trailers that name a host")
        half.trailers = block
        if half.inbox is not None:
            half.inbox_ended = half.inbox_ended or block.ends
            return
        half.has_ended = half.has_ended or block.ends
        self._went_on(stream, leg.direction)

    # Content

    def _on_data(self, leg: Leg, flags: int, number: int, payload: bytes) -> None:
        content = unpadded(flags, payload)
        here = self._here(leg, number)
        stream = self.streams.get(here)
        size = len(payload)
        if stream is None or stream.half(leg.direction).is_dropped:
            self._credit(leg, None, size)
            if stream:
                self._credit_stream(leg, here, size)
                half = stream.half(leg.direction)
                half.has_ended = half.has_ended or bool(flags & wire.END_STREAM)
                self._forget_if_over(stream)
            return
        half = stream.half(leg.direction)
        if half.inbox is not None:
            self._credit(leg, here, size - len(content))
            self._to_inbox(half, content, ends=bool(flags & wire.END_STREAM))
            return
        half.has_ended = half.has_ended or bool(flags & wire.END_STREAM)
        passes = not (half.is_held or half.queue or half.rate) and half.trailers is None
        if passes and self._room(leg, half, passes=True) >= size:
            leg.window -= size
            half.window -= size
            leg.out += frame_bytes(wire.DATA, flags, self._there_of(leg, here), payload)
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
            self.jobs.append(Job(stream, direction))

    def _on_reset(self, leg: Leg, number: int, payload: bytes) -> None:
        here = self._here(leg, number)
        stream = self.streams.get(here)
        if stream is None:
            return
        if leg.direction is DOWN:
            self._conduct.on_reset(here)
            if stream.down.is_held or stream.down.queue:
                self._reset_later(stream, payload)
                return
        is_known = not (stream.is_local or (leg.direction is UP and stream.up.is_held))
        if is_known:
            leg.out += frame_bytes(wire.RST_STREAM, 0, self._there_of(leg, here), payload)
        self._forget(stream)

    def _reset_later(self, stream: Stream, payload: bytes) -> None:
        """The server has reset a stream, and what it has sent before is held back."""
        stream.reset, stream.is_local = payload, True
        self._drop(stream, UP)
        self._comes_no_more(stream, DOWN)

    def _comes_no_more(self, stream: Stream, direction: Direction) -> None:
        """A body that the editor wants was cut off."""
        half = stream.half(direction)
        if half.is_collecting:
            half.is_collecting = False
            self.jobs.append(Job(stream, direction))

    # The ends of the connection

    def end(self, direction: Direction) -> None:
        """The source of a direction has ended."""
        self._legs[direction].has_ended = True
        for stream in self.streams.values():
            self._comes_no_more(stream, direction)

    def fail(self, code: int) -> None:
        """Tell the client that it has broken the protocol (RFC 9113 §5.4.1)."""
        self.has_failed = True
        payload = self._conduct.last.to_bytes(4) + code.to_bytes(4)
        leg = self._legs[DOWN]
        if not leg.has_begun:
            leg.has_begun = True
            leg.out[:0] = frame_bytes(wire.SETTINGS, 0, 0)
        leg.out += frame_bytes(wire.GOAWAY, 0, 0, payload)
