"""The events of the flows in the table, for the view of one flow. Bounded in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import field
from itertools import islice
from typing import Final, NamedTuple

from cachetools import LRUCache

from mitml4.dataclass import dataclass
from mitml4.events import Event, FlowClose, FlowOpen, weight
from mitml4.model.builder import FlowBuilder
from mitml4.model.flow import Flow

__all__ = ["Built", "History", "Reader"]

_TOTAL_BYTES: Final = 32 << 20
_FLOW_BYTES: Final = 2 << 20
"""Of a flow that says more, the last events are not kept."""
_MAX_BUILT: Final = 1000


@dataclass(slots=True)
class _Events:
    events: list[Event] = field(default_factory=list)
    weight: int = 0
    missing: int = 0
    """Later events that are not kept."""


@dataclass(slots=True)
class History:
    """Keeps events by flow. The flows that opened first are forgotten first."""

    _flows: OrderedDict[int, _Events] = field(default_factory=OrderedDict)
    _weight: int = 0

    def add(self, event: Event) -> None:
        number = getattr(event, "flow", None)
        if number is None:
            return
        if isinstance(event, FlowOpen):
            self._flows[number] = _Events()
        kept = self._flows.get(number)
        if kept is None:
            return
        if kept.weight > _FLOW_BYTES and not isinstance(event, FlowClose):
            kept.missing += 1
            return
        size = weight(event)
        kept.events.append(event)
        kept.weight += size
        self._weight += size
        while self._weight > _TOTAL_BYTES and len(self._flows) > 1:
            _, oldest = self._flows.popitem(last=False)
            self._weight -= oldest.weight

    def count(self, number: int) -> int:
        """How many events of a flow are kept. Any thread may ask."""
        kept = self._flows.get(number)
        return len(kept.events) if kept else 0

    def missing(self, number: int) -> int:
        """How many later events of a flow are not kept. Any thread may ask."""
        kept = self._flows.get(number)
        return kept.missing if kept else 0

    def events(self, number: int, start: int = 0) -> list[Event]:
        """The events of a flow that are kept, from one of them on. Any thread may ask."""
        kept = self._flows.get(number)
        return list(islice(kept.events, start, len(kept.events))) if kept else []


class Built(NamedTuple):
    """A flow, and of how many events it is built."""

    flow: Flow
    events: int


@dataclass(slots=True)
class _Building:
    builder: FlowBuilder = field(default_factory=FlowBuilder)
    count: int = 0
    flow: Flow | None = None


@dataclass(slots=True)
class Reader:
    """Builds flows from their events. The flows that were read last are continued when there are
    more events, so that a long one is not built again for each of them."""

    history: History
    _flows: LRUCache[int, _Building] = field(default_factory=lambda: LRUCache(_MAX_BUILT))

    def unread(self, number: int) -> int:
        """How many events `flow` would read."""
        building = self._flows.get(number)
        return self.history.count(number) - (building.count if building else 0)

    def flow(self, number: int) -> Built | None:
        """The flow as its events have it; None if they are not kept any more."""
        building = self._flows.get(number) or _Building()
        for event in self.history.events(number, building.count):
            closed = building.builder.add(event)
            building.flow = closed[0] if closed else building.builder.flow(number)
            building.count += 1
        if building.flow is None:
            return None
        self._flows[number] = building
        return Built(building.flow, building.count)
