"""The events of the flows in the table, for the view of one flow. Bounded in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.events import Event, FlowClose, FlowOpen, weight
from mitml4.model.builder import FlowBuilder
from mitml4.model.flow import Flow

__all__ = ["History", "flow_of"]

_TOTAL_BYTES: Final = 32 << 20
_FLOW_BYTES: Final = 2 << 20
"""Of a flow that says more, the last events are not kept."""


@dataclass(slots=True)
class _Events:
    events: list[Event] = field(default_factory=list)
    weight: int = 0


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
        if kept is None or (kept.weight > _FLOW_BYTES and not isinstance(event, FlowClose)):
            return
        size = weight(event)
        kept.events.append(event)
        kept.weight += size
        self._weight += size
        while self._weight > _TOTAL_BYTES and len(self._flows) > 1:
            _, oldest = self._flows.popitem(last=False)
            self._weight -= oldest.weight

    def events(self, number: int) -> tuple[Event, ...]:
        """The events of a flow that are kept. Any thread may ask."""
        kept = self._flows.get(number)
        return tuple(kept.events) if kept else ()


def flow_of(events: Iterable[Event]) -> Flow | None:
    """The flow as its events have it; None if there are none."""
    builder = FlowBuilder()
    for event in events:
        if closed := builder.add(event):
            return closed[0]
    return next(iter(builder.finish()), None)
