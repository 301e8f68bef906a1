"""TCP streams out of segments: in order, each byte once, whatever the capture did to them.

Theory of operation. A flow has two halves, one for each sender, found by the segment's key alone.
A half knows its place in the stream (`position`) and the place of the next byte that its listener
wants to see (`wanted`). Segments are cut to what is new, put in order, and shown. One that is just
what comes next, and that nobody wants to see, would only move `position`: nearly all packets of a
long capture are like that, and fast_path.py keeps them from coming here.

A segment beyond `position` waits behind the hole. The hole is given up, and told as lost, when the
receiver has acknowledged what the capture lacks and the sender goes on behind it (one packet late,
because captures swap neighbours), when too much waits, or when the flow ends. Where a flow begins
without a SYN, its first byte is the first one seen.

Memory is bounded: by the number of flows (the oldest is closed for a new one), by what waits behind
each hole, and by what waits and what listeners keep all together (the oldest flow gives it up).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from heapq import heappop, heappush
from ipaddress import ip_address
from struct import Struct
from typing import Final

from mitml4.address import Address
from mitml4.capture.agenda import Agenda
from mitml4.capture.flow import ALL, MASK, CloseReason, Flow, FlowListener, Half
from mitml4.capture.network.dissector import ACK, FIN, RST, SYN, Segment
from mitml4.capture.sharing import Share
from mitml4.protocols.conversation import Direction

__all__ = ["MAX_FLOWS", "Reassembler", "addresses", "reversed_key"]

_HALF: Final = 1 << 31
_MAX_AHEAD: Final = 1 << 30
"""The largest window that TCP can have (RFC 7323 §2.3); what is further ahead is not the flow's."""

MAX_FLOWS: Final = 40_000
"""At a time; each costs 2 to 5 KB beside what it keeps."""
_MAX_KEPT_BYTES: Final = 32 << 20
_MAX_WAITING_BYTES: Final = 1 << 18
_MAX_WAITING_SEGMENTS: Final = 512
_WAITING_SEGMENT: Final = 160
"""What a segment that waits costs beside its bytes."""
_LINGER_S: Final = 30.0
"""For how long late segments of a flow that has ended are still counted as its own."""


class Reassembler:
    """Takes segments in capture order and tells the listeners of their flows."""

    def __init__(
        self,
        listen: Callable[[Flow], FlowListener],
        *,
        agenda: Agenda | None = None,
        share: Share | None = None,
        max_flows: int = MAX_FLOWS,
        max_kept_bytes: int = _MAX_KEPT_BYTES,
    ) -> None:
        """`listen` makes the listener of a flow that has just opened. `share`: which flows are
        followed; the limits are those of all."""
        self.orphan_segments = 0
        """Segments without payload that belong to no flow."""
        self.evicted = 0
        """Flows that were closed, or no longer looked into, for want of memory."""
        self.halves: dict[bytes, Half] = {}
        """By the key of their segments."""
        self._listen = listen
        self._share = share or Share()
        self._max_flows = max_flows // self._share.count
        self._max_kept_bytes = max_kept_bytes // self._share.count
        # A dict looks for its first entry behind all that were removed before it.
        self._flows: OrderedDict[int, Flow] = OrderedDict()
        self._keeping: OrderedDict[int, int] = OrderedDict()
        self._kept_bytes = 0
        self._lingering: OrderedDict[int, Flow] = OrderedDict()
        """Those that have ended, in the order in which they did."""
        self._agenda = agenda or Agenda()

    def take(self, time_s: float, segment: Segment) -> None:
        """The next segment of the capture."""
        key, seq, ack, flags, data, length = segment
        half = self.halves.get(key)
        if half is not None and flags & SYN and _is_new(half, seq, flags):
            self._finish(half.flow)
            half = None
        if half is None:
            if not (flags & SYN or (length and not flags & RST)):
                self.orphan_segments += 1
                return
            if self._share.is_foreign(key):
                return
            half = self._open(time_s, key, flags)
        flow, other = half.flow, half.other
        flow.last_s = time_s
        if flags & RST:
            flow.reset |= not flow.ended
            self._linger(flow, time_s)
            return
        if flow.answered_s is None and half is flow.down:
            flow.answered_s = time_s
        if flags & SYN:
            _synchronize(half, seq)
            seq = (seq + 1) & MASK
        if half.origin is None:
            half.origin = seq
        if length or flags & FIN:
            self._arrive(half, seq, length, data, bool(flags & FIN), time_s)
        if half.watched and flags & ACK:
            _acknowledge(other, ack)
        if half.ended and other.ended:
            self._linger(flow, time_s)
        half.set_free()
        other.set_free()
        while self._kept_bytes > self._max_kept_bytes:
            self._share.depend()
            self._give_up(self._flows[next(iter(self._keeping))], time_s)

    def close(self) -> Iterator[int]:
        """The capture is over, and with it every flow that is still open: yields the number of
        each."""
        for flow in list(self._flows.values()):
            self._finish(flow)
            yield flow.number

    # Opening and closing

    def _open(self, time_s: float, key: bytes, flags: int) -> Half:
        """A flow begins. A SYN comes from the client, its answer from the server; without either,
        who speaks first is the client."""
        self._make_room()
        reverse = reversed_key(key)
        from_server = flags & SYN and flags & ACK
        up, down = (reverse, key) if from_server else (key, reverse)
        client, destination = addresses(up)
        flow = Flow(next(self._share.numbers), client, destination, time_s, syn=bool(flags & SYN))
        flow.up, flow.down = Half(flow, Direction.UP, up), Half(flow, Direction.DOWN, down)
        flow.up.other, flow.down.other = flow.down, flow.up
        self._flows[flow.number] = flow
        self.halves[up], self.halves[down] = flow.up, flow.down
        flow.listener = self._listen(flow)
        return flow.down if from_server else flow.up

    def _make_room(self) -> None:
        """Flows that have ended go first, then the oldest."""
        while len(self._flows) >= self._max_flows:
            self._share.depend()
            if self._lingering:
                self._finish(next(iter(self._lingering.values())))
            else:
                self.evicted += 1
                self._finish(next(iter(self._flows.values())))

    def _linger(self, flow: Flow, time_s: float) -> None:
        if flow.number in self._lingering:
            return
        self._lingering[flow.number] = flow
        self._agenda.add(time_s + _LINGER_S, flow.number, self._finish_ended)
        if not (flow.reset or flow.up.waiting or flow.down.waiting):
            flow.listener.over()

    def _finish_ended(self, _time_s: float, number: int) -> None:
        if flow := self._lingering.get(number):
            self._finish(flow)

    def _finish(self, flow: Flow) -> None:
        """Tell what still waits, and then the end; the flow is forgotten."""
        for half in (flow.up, flow.down):
            while half.waiting:
                self._skip_hole(half, flow.last_s)
            if half.told != half.position:
                self._report(half, flow.last_s)
            self.halves.pop(half.key, None)  # both are one where a packet's ends are the same
        del self._flows[flow.number]
        self._lingering.pop(flow.number, None)
        self._kept_bytes -= self._keeping.pop(flow.number, 0)
        flow.listener.close(flow, _reason(flow))
        flow.let_go()

    # Putting in order

    def _arrive(
        self, half: Half, seq: int, length: int, data: bytes, fin: bool, time_s: float
    ) -> None:
        """Deliver what is new of a segment, or let it wait behind the hole before it."""
        ahead = half.ahead(seq)
        if not (ahead or fin or half.waiting or half.ended):  # most just come next
            self._show(half, data, length, time_s)
            half.other.watched = half.acknowledged = False
            return
        if ahead >= _HALF:
            ahead -= 1 << 32
        if ahead > _MAX_AHEAD or half.ended:
            return
        if ahead > 0:
            self._wait(half, (half.position + ahead, length, data, fin), time_s)
        else:
            self._deliver(half, -ahead, length, data, fin, time_s)
            self._drain(half, time_s)

    def _deliver(
        self, half: Half, known: int, length: int, data: bytes, fin: bool, time_s: float
    ) -> None:
        """The first `known` bytes of the segment have been delivered before."""
        fresh = length - known
        if fresh < 0 or half.ended:
            return
        self._show(half, data[known:], fresh, time_s)
        if fin:
            assert half.origin is not None
            half.origin = (half.origin + 1) & MASK
            half.ended = True
            if half.told != half.position:
                self._report(half, time_s)
            half.flow.listener.end(half.direction, time_s)
            self._ask(half.flow, time_s)

    def _show(self, half: Half, data: bytes, length: int, time_s: float) -> None:
        """Hand on `length` bytes, of which `data` is what was captured: unseen, seen or lost."""
        listener = half.flow.listener
        while length:
            if half.position < half.wanted:
                count = min(half.wanted - half.position, length)
                half.position += count
                data, length = data[count:], length - count
                if half.position < half.wanted:
                    return
                self._report(half, time_s)
            elif data:
                half.position = half.told = half.position + len(data)
                listener.data(half.direction, data, time_s)
                data, length = b"", length - len(data)
            else:
                half.position = half.told = half.position + length
                listener.lost(half.direction, length, time_s)
                length = 0
            self._ask(half.flow, time_s)

    def _drain(self, half: Half, time_s: float) -> None:
        """Deliver what has waited and now comes next."""
        if half.waiting:
            while half.waiting and half.waiting[0][0] <= half.position:
                position, length, data, fin = heappop(half.waiting)
                half.waiting_bytes -= len(data)
                self._deliver(half, half.position - position, length, data, fin, time_s)
            self._account(half.flow)
        if not half.waiting:
            half.other.watched = half.acknowledged = False

    def _wait(self, half: Half, segment: tuple[int, int, bytes, bool], time_s: float) -> None:
        position, length, data, fin = segment
        if half.wanted >= ALL // 2:
            data = b""  # only its length will ever be needed
        if half.waiting is None:
            half.waiting = []
        heappush(half.waiting, (position, length, data, fin))
        half.waiting_bytes += len(data)
        half.other.watched = True
        full = half.waiting_bytes > _MAX_WAITING_BYTES or len(half.waiting) > _MAX_WAITING_SEGMENTS
        if full or half.acknowledged:
            self._skip_hole(half, time_s)
        else:
            self._account(half.flow)

    def _skip_hole(self, half: Half, time_s: float) -> None:
        """What is missing before the first that waits is lost."""
        assert half.waiting
        half.acknowledged = False
        missing = half.waiting[0][0] - half.position
        half.lost += missing
        self._show(half, b"", missing, time_s)
        self._drain(half, time_s)

    # What the listener wants

    def _report(self, half: Half, time_s: float) -> None:
        """Tell the listener what has passed unseen since it was asked."""
        passed = half.position - half.told
        half.told = half.position
        half.flow.listener.passed(half.direction, passed, time_s)

    def _ask(self, flow: Flow, time_s: float) -> None:
        """The listener was told something: what does it want now, and what does it keep?"""
        listener, up, down = flow.listener, flow.up, flow.down
        if up.told != up.position:
            self._report(up, time_s)
        if down.told != down.position:
            self._report(down, time_s)
        unseen_up, unseen_down = listener.unseen()
        up.wanted = up.position + unseen_up
        down.wanted = down.position + unseen_down
        if listener.kept_bytes or flow.number in self._keeping:
            self._account(flow)

    def _account(self, flow: Flow) -> None:
        """What a flow keeps may have changed."""
        kept = flow.listener.kept_bytes + _waiting(flow.up) + _waiting(flow.down)
        self._kept_bytes += kept - self._keeping.get(flow.number, 0)
        if kept:
            self._keeping[flow.number] = kept
        else:
            self._keeping.pop(flow.number, None)

    def _give_up(self, flow: Flow, time_s: float) -> None:
        """Wait for nothing that is missing in a flow, and keep nothing of it any more."""
        self.evicted += not flow.gave_up
        flow.gave_up = True
        for half in (flow.up, flow.down):
            while half.waiting:
                self._skip_hole(half, time_s)
        flow.listener.give_up(time_s)
        self._ask(flow, time_s)
        self._kept_bytes -= self._keeping.pop(flow.number, 0)
        for half in (flow.up, flow.down):
            half.set_free()


def _waiting(half: Half) -> int:
    """What those that wait behind a hole cost, in bytes."""
    return half.waiting_bytes + _WAITING_SEGMENT * len(half.waiting) if half.waiting else 0


def _is_new(half: Half, seq: int, flags: int) -> bool:
    """Whether a SYN begins another flow between the same ends, or belongs to this one."""
    flow = half.flow
    if flags & ACK:
        return False
    if flow.ended or not flow.syn:
        return True
    return half.first is not None and half.first != seq and bool(half.count or half.other.count)


def _synchronize(half: Half, seq: int) -> None:
    """A SYN says where a half begins, as long as the receiver has not agreed to another."""
    if not half.count and not half.confirmed:
        half.first = seq
        half.origin = (seq + 1 - half.position) & MASK
        half.other.watched = True


def _acknowledge(half: Half, ack: int) -> None:
    """The receiver has everything before `ack`, be it in the capture or not."""
    if half.origin is None:
        return
    beyond = half.ahead(ack)
    if beyond == 0:
        half.confirmed = True
        half.other.watched = bool(half.waiting)
    elif beyond < _HALF:
        half.acknowledged = True


def _reason(flow: Flow) -> CloseReason:
    if flow.reset:
        return "refused" if flow.answered_s is None else "reset"
    return "closed" if flow.ended else "shutdown"


def reversed_key(key: bytes) -> bytes:
    """The key of the other direction."""
    width = (len(key) - 4) // 2
    ports = 2 * width
    return key[width:ports] + key[:width] + key[ports + 2 :] + key[ports : ports + 2]


def addresses(key: bytes) -> tuple[Address, Address]:
    """Source and destination."""
    width = (len(key) - 4) // 2
    source, destination = _ports(key, 2 * width)
    return Address(_ip(key[:width]), source), Address(_ip(key[width : 2 * width]), destination)


_ports: Final = Struct(">HH").unpack_from


@lru_cache(4096)
def _ip(address: bytes) -> str:
    return str(ip_address(address))
