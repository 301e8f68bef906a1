"""The events of the flows in the table, for the view of one flow. Bounded in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import field
from itertools import islice
from typing import Final, NamedTuple, TypeAlias

from cachetools import LRUCache

from mitml4.dataclass import dataclass
from mitml4.events import Event, FlowOpen, LayerEvent, weight
from mitml4.model.builder import FlowBuilder
from mitml4.model.flow import Flow

__all__ = ["Built", "History", "Reader", "Version"]

_TOTAL_BYTES: Final = 32 << 20
_FLOW_BYTES: Final = 2 << 20
"""Of a flow in which more is said, the older half of that is forgotten."""
_MAX_BUILT: Final = 1000

Version: TypeAlias = tuple[int, int]
"""How often events of a flow were forgotten, and how many are kept."""


@dataclass(slots=True)
class _Events:
    kept: tuple[int, list[Event]] = field(default_factory=lambda: (0, []))
    """How often some were forgotten, and the others. The list only grows; it is replaced when some
    are forgotten, so that another thread always sees a number with its list."""
    weight: int = 0
    missing: int = 0
    """Events that were forgotten."""


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
        found = self._flows.get(number)
        if found is None:
            return
        size = weight(event)
        found.kept[1].append(event)
        found.weight += size
        self._weight += size
        if found.weight > _FLOW_BYTES:
            self._forget_half(found)
        while self._weight > _TOTAL_BYTES and len(self._flows) > 1:
            _, oldest = self._flows.popitem(last=False)
            self._weight -= oldest.weight

    def _forget_half(self, found: _Events) -> None:
        """Forget the older half of what was said. What the flow is stays known."""
        times, events = found.kept
        said = [event for event in events if isinstance(event, LayerEvent)]
        old = said[: (len(said) + 1) // 2]
        forgotten = set(map(id, old))
        found.kept = times + 1, [event for event in events if id(event) not in forgotten]
        found.missing += len(old)
        lighter = sum(map(weight, old))
        found.weight -= lighter
        self._weight -= lighter

    def version(self, number: int) -> Version:
        """Another value when other events of a flow are kept. Any thread may ask."""
        times, events = self.kept(number)
        return times, len(events)

    def missing(self, number: int) -> int:
        """How many events of a flow were forgotten. Any thread may ask."""
        found = self._flows.get(number)
        return found.missing if found else 0

    def kept(self, number: int) -> tuple[int, Sequence[Event]]:
        """How often events of a flow were forgotten, and the others, which only get more while that
        number is the same. Any thread may ask."""
        found = self._flows.get(number)
        return found.kept if found else (0, ())


class Built(NamedTuple):
    """A flow, and of which events it is built."""

    flow: Flow
    version: Version


@dataclass(slots=True)
class _Building:
    times: int
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
        times, count = self.history.version(number)
        building = self._flows.get(number)
        return count - (building.count if building and building.times == times else 0)

    def flow(self, number: int) -> Built | None:
        """The flow as its events have it; None if they are not kept any more."""
        times, events = self.history.kept(number)
        building = self._flows.get(number)
        if building is None or (building.times != times and events):
            building = _Building(times)
        for event in islice(events, building.count, len(events)):
            closed = building.builder.add(event)
            building.flow = closed[0] if closed else building.builder.flow(number)
            building.count += 1
        if building.flow is None:
            return None
        self._flows[number] = building
        return Built(building.flow, (building.times, building.count))
