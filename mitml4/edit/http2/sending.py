"""What is sent on both directions of an HTTP/2 connection: header blocks, and content within the
windows."""

from __future__ import annotations

from collections.abc import Sequence

from hpack import HeaderTuple

from mitml4.edit.http2.conduct import Conduct
from mitml4.edit.http2.messages import fresh_encoder
from mitml4.edit.http2.state import Block, Half, Job, Leg, Stream
from mitml4.edit.memory import EditMemory
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http import http2_wire as wire
from mitml4.protocols.http.http2_wire import ErrorCode, Http2Error, frame_bytes

__all__ = ["Sending"]

UP, DOWN = Direction.UP, Direction.DOWN


class Sending:
    """The streams of a connection, and what of them may be sent. For subclassing."""

    def __init__(self, limit: int, memory: EditMemory, *, is_strict: bool = False) -> None:
        """`limit`: bytes of bodies that are held back at a time; `memory`: those of the session.
        `is_strict`: trailers of requests name no hosts."""
        self._is_strict = is_strict
        self._memory = memory
        self._legs = {direction: Leg(direction) for direction in Direction}
        self.streams: dict[int, Stream] = {}
        self._limit = limit
        self._collected = 0
        """Of all streams together."""
        self.jobs: list[Job] = []
        self._to_server: dict[int, int] = {}
        self._to_client: dict[int, int] = {}
        self._last_sent = 0
        self.has_pushed = False
        """Whether there are pushed streams."""
        self.has_failed = False
        """Whether the client has broken the protocol, and is told so."""
        self._conduct = Conduct()

    def is_idle(self, direction: Direction) -> bool:
        """Whether nothing of a direction is held back, or waits for windows."""
        halves = (stream.half(direction) for stream in self.streams.values())
        return not any(half.is_held or half.queue or half.inbox for half in halves)

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

    def _send_block(
        self,
        leg: Leg,
        block: Block,
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
                if not at and kind == wire.HEADERS:  # the end may come with content, or without
                    flags = flags & ~wire.END_STREAM | ends
                leg.out += frame_bytes(kind, flags, number, payload)
            return
        leg.encoder = leg.encoder or fresh_encoder(leg.settings.table)
        data = block.prefix + leg.encoder.encode(block.headers if changed is None else changed)
        flags = block.flags & wire.HAS_PRIORITY | (wire.END_STREAM if ends else 0)
        kind = block.kind
        pieces = [
            data[at : at + wire.MIN_MAX_FRAME] for at in range(0, len(data), wire.MIN_MAX_FRAME)
        ] or [b""]
        for at, piece in enumerate(pieces):
            is_last = at == len(pieces) - 1
            leg.out += frame_bytes(
                kind, flags | (wire.END_HEADERS if is_last else 0), number, piece
            )
            kind, flags = wire.CONTINUATION, 0

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
            count = min(len(half.queue), wire.MIN_MAX_FRAME, self._room(leg, half))
            if half.rate:
                count = min(count, half.allowance)
            if count <= 0:
                leg.waiting[stream.number] = stream
                return
            piece = bytes(half.queue[:count])
            del half.queue[:count]
            ends = half.has_ended and not half.queue and half.trailers is None
            leg.out += frame_bytes(wire.DATA, wire.END_STREAM if ends else 0, number, piece)
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
                leg.out += frame_bytes(wire.DATA, wire.END_STREAM, number)
            half.is_over = True
        self._forget_if_over(stream)

    def _room(self, leg: Leg, half: Half, *, passes: bool = False) -> int:
        """How much the windows allow. `passes`: for what has just come, with nothing before it that
        waits. Then its source knows what of the latest window it may use already."""
        is_known = passes and not half.swallow
        return min(leg.window, half.window - (0 if is_known else leg.settings.early_window))

    def _on_window_update(self, leg: Leg, number: int, count: int) -> None:
        """The receiver of the other direction takes more."""
        towards = self._legs[leg.direction.other]
        if not number:
            towards.window += count
            kept = min(count, towards.swallow)
            towards.swallow -= kept
            if count > kept:
                leg.out += frame_bytes(wire.WINDOW_UPDATE, 0, 0, (count - kept).to_bytes(4))
            self._pump_all(towards.direction)
            return
        here = self._here(leg, number)
        stream = self.streams.get(here)
        if stream is None:
            return
        half = stream.half(towards.direction)
        half.window += count
        if half.window > wire.ID and leg.direction is UP:
            raise Http2Error(
                "a window above 2^31-1", ErrorCode.FLOW_CONTROL_ERROR
            )  # RFC 9113 §6.9.1
        kept = min(count, half.swallow)
        half.swallow -= kept
        left = count - kept
        if left and leg.direction is UP and (stream.is_local or stream.up.is_held):
            stream.early_updates += left
        elif left and not half.has_ended:
            leg.out += frame_bytes(
                wire.WINDOW_UPDATE, 0, self._there_of(leg, here), left.to_bytes(4)
            )
        self._pump(stream, towards.direction)

    def _credit(self, leg: Leg, number: int | None, count: int) -> None:
        """Let the source of a leg send so many bytes more."""
        if count:
            back = self._legs[leg.direction.other].out
            back += frame_bytes(wire.WINDOW_UPDATE, 0, 0, count.to_bytes(4))
            if number is not None:
                self._credit_stream(leg, number, count)

    def _credit_stream(self, leg: Leg, number: int, count: int) -> None:
        stream = self.streams.get(number)
        if count and stream and not stream.half(leg.direction).has_ended:
            back = self._legs[leg.direction.other]
            there = self._there_of(back, number)
            back.out += frame_bytes(wire.WINDOW_UPDATE, 0, there, count.to_bytes(4))

    def _credit_all(self, leg: Leg, number: int, half: Half) -> None:
        """Credit what waits in a queue."""
        self._credit(leg, number, len(half.queue) - half.credited)
        half.credited = len(half.queue)

    # The ends of streams

    def _drop(self, stream: Stream, direction: Direction) -> None:
        half = stream.half(direction)
        self._credit_all(self._legs[direction], stream.number, half)
        half.queue.clear()
        half.credited = 0
        if half.inbox is not None:
            self._credit(self._legs[direction], stream.number, len(half.inbox))
            half.inbox, half.has_ended = None, half.inbox_ended
        self._collect_no_more(half)
        half.is_dropped, half.is_held = True, False
        self._legs[direction].waiting.pop(stream.number, None)

    def _forget_if_over(self, stream: Stream) -> None:
        if stream.reset is not None and not (stream.down.is_held or stream.down.queue):
            self._legs[DOWN].out += frame_bytes(wire.RST_STREAM, 0, stream.number, stream.reset)
            self._forget(stream)
            return
        up_is_over = stream.up.is_over or (stream.up.is_dropped and stream.up.has_ended)
        if up_is_over and stream.down.is_over:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        if self.streams.pop(stream.number, None) is None:
            return
        for direction in Direction:
            half, leg = stream.half(direction), self._legs[direction]
            self._credit(leg, None, len(half.queue) - half.credited + len(half.inbox or b""))
            half.queue.clear()
            half.inbox = None
            leg.waiting.pop(stream.number, None)
            self._collect_no_more(half)
        if there := self._to_server.pop(stream.number, None):
            self._to_client.pop(there, None)

    # What is held back

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

    def _here(self, leg: Leg, number: int) -> int:
        """The client's number of a stream that a frame of this leg is about."""
        return self._to_client.get(number, number) if leg.direction is DOWN else number

    def _there(self, leg: Leg, number: int) -> int:
        return self._there_of(leg, self._here(leg, number))

    def _there_of(self, leg: Leg, number: int) -> int:
        """The number that a stream has where a leg leads."""
        return self._to_server.get(number, number) if leg.direction is UP else number

    def _last(self, last: int) -> int:
        """The client's number of the last stream that the server has seen."""
        if not self._to_server or last == wire.ID:
            return last
        seen = [
            number
            for number in self.streams
            if number % 2 and self._to_server.get(number, number) <= last
        ]
        return max(seen, default=last)
