"""Flows of UDP out of datagrams: by both addresses and ports, with an end when they are idle.

UDP has no connections. A flow here begins with a datagram between two ends that have been silent
for a minute, and ends when they are again: RFC 4787 has NATs do the same, Linux's conntrack takes
30 seconds for a flow without an answer and 120 for others.

Most datagrams of a long capture belong to flows that nobody has to see any more, and only move two
numbers: fast_path.py does that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Final, Literal, Protocol

from mitml4.capture.agenda import Agenda
from mitml4.capture.flow import CloseReason, FlowOf
from mitml4.capture.network.dissector import Datagram
from mitml4.capture.reassembly import MAX_FLOWS, addresses, reversed_key
from mitml4.capture.sharing import Share
from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Direction

__all__ = ["DatagramFlow", "DatagramFlows", "DatagramHalf", "DatagramListener"]

_IDLE_S: Final = 60.0
_MAX_KEPT_BYTES: Final = 16 << 20


class DatagramListener(Protocol):
    """Who is shown a flow's datagrams. Times are the packet's, in seconds."""

    kept_bytes: int
    """How much it holds in memory now."""

    def take(self, direction: Direction, data: bytes, time_s: float) -> bool:
        """The next datagram, as far as it was captured. Returns whether it wants to see more."""

    def give_up(self, time_s: float) -> None:
        """Keep no bytes any more."""

    def close(self, reason: CloseReason) -> None:
        """Nothing more will be told of the flow."""


@dataclass(slots=True, eq=False)
class DatagramFlow(FlowOf["DatagramHalf"]):
    """What two ends say to each other, from the first datagram on."""

    transport: Literal["udp"] = field(default="udp", init=False)
    listener: DatagramListener = field(init=False)
    watched: bool = True
    """Whether the listener still wants to see datagrams."""


class DatagramHalf:
    """One direction of a flow."""

    __slots__ = ("count", "direction", "flow", "free", "key")

    def __init__(self, flow: DatagramFlow, direction: Direction, key: bytes) -> None:
        self.flow = flow
        self.direction = direction
        self.key = key
        self.count = 0
        """Payload bytes so far, as the headers say."""
        self.free = False
        """Whether nobody has to see the next datagrams: they are only counted."""


class DatagramFlows:
    """Takes datagrams in capture order and tells the listeners of their flows."""

    def __init__(
        self,
        listen: Callable[[DatagramFlow], DatagramListener],
        *,
        agenda: Agenda,
        share: Share,
        is_tunnel: Callable[[frozenset[int]], bool],
        max_flows: int = MAX_FLOWS,
        max_kept_bytes: int = _MAX_KEPT_BYTES,
    ) -> None:
        """`listen` makes the listener of a flow that has just opened. `share`: which flows are
        followed; the limits are those of all. `is_tunnel`: whether every datagram between these
        ports has to be looked into."""
        self.evicted = 0
        """Flows that were closed, or no longer looked into, for want of memory."""
        self.halves: dict[bytes, DatagramHalf] = {}
        self._listen = listen
        self._share = share
        self._is_tunnel = is_tunnel
        self._max_flows = max_flows // share.count
        self._max_kept_bytes = max_kept_bytes // share.count
        self._flows: OrderedDict[int, DatagramFlow] = OrderedDict()  # see reassembly.py
        self._agenda = agenda
        self._keeping: OrderedDict[int, int] = OrderedDict()
        self._kept_bytes = 0

    def take(self, time_s: float, datagram: Datagram) -> None:
        """The next datagram of the capture."""
        key, data, length = datagram
        half = self.halves.get(key)
        if half is None:
            if self._share.is_foreign(key):
                return
            half = self._open(time_s, key)
        flow = half.flow
        flow.last_s = time_s
        half.count += length
        if not flow.watched:
            return
        if not flow.listener.take(half.direction, data, time_s):
            self._let_be(flow)
        self._account(flow)
        while self._kept_bytes > self._max_kept_bytes:
            self._share.depend()
            self._give_up(self._flows[next(iter(self._keeping))], time_s)

    def close(self) -> Iterator[int]:
        """The capture is over, and with it every flow: yields the number of each."""
        for flow in list(self._flows.values()):
            self._finish(flow, "closed")
            yield flow.number

    def _open(self, time_s: float, key: bytes) -> DatagramHalf:
        while len(self._flows) >= self._max_flows:
            self._share.depend()
            self.evicted += 1
            self._finish(next(iter(self._flows.values())), "shutdown")
        client, destination = addresses(key)
        flow = DatagramFlow(next(self._share.numbers), client, destination, time_s)
        back = reversed_key(key)
        flow.up = DatagramHalf(flow, Direction.UP, key)
        flow.down = DatagramHalf(flow, Direction.DOWN, back)
        self._flows[flow.number] = flow
        self.halves[back], self.halves[key] = flow.down, flow.up
        self._agenda.add(time_s + _IDLE_S, flow.number, self._close_if_idle)
        flow.listener = self._listen(flow)
        return flow.up

    def _close_if_idle(self, time_s: float, number: int) -> None:
        flow = self._flows.get(number)
        if flow is None:
            return
        if flow.last_s + _IDLE_S <= time_s:
            self._finish(flow, "closed")
        else:
            self._agenda.add(flow.last_s + _IDLE_S, number, self._close_if_idle)

    def _let_be(self, flow: DatagramFlow) -> None:
        """Only count what follows, unless it carries flows itself."""
        flow.watched = False
        ports = frozenset((flow.client.port, flow.destination.port))
        flow.up.free = flow.down.free = not self._is_tunnel(ports)

    def _account(self, flow: DatagramFlow) -> None:
        kept = flow.listener.kept_bytes
        self._kept_bytes += kept - self._keeping.get(flow.number, 0)
        if kept:
            self._keeping[flow.number] = kept
        else:
            self._keeping.pop(flow.number, None)

    def _give_up(self, flow: DatagramFlow, time_s: float) -> None:
        self.evicted += 1
        flow.listener.give_up(time_s)
        self._let_be(flow)
        self._account(flow)

    def _finish(self, flow: DatagramFlow, reason: CloseReason) -> None:
        for half in (flow.up, flow.down):
            self.halves.pop(half.key, None)
        del self._flows[flow.number]
        self._kept_bytes -= self._keeping.pop(flow.number, 0)
        flow.listener.close(reason)
        del flow.listener, flow.up.flow, flow.down.flow
