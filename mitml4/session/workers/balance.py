"""Which process carries the next flow: the session itself, or one of its workers.

Flows of which no layer is known yet are the work that lies ahead. A process that is busy otherwise,
as the session is with the events of all, keeps its flows longer in that state, so it gets fewer.
Flows that are open may be idle, so a large difference in their number says nothing: a process that
has just been started need not carry all that come.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

from mitml4.events import FlowClose, FlowLayer
from mitml4.sinks.updates import Published

__all__ = ["Balance", "Carrier"]

_MAX_DIFFERENCE: Final = 16
"""So many open flows more count."""


class Carrier:
    """A process that carries flows."""

    def __init__(self) -> None:
        self.starting: set[int] = set()
        """The numbers of its flows of which no layer is known yet."""
        self.open: set[int] = set()
        self.begun = 0

    def load(self, fewest: int) -> tuple[int, int]:
        """What it has to do; `fewest` flows are open in any process."""
        more = len(self.open) - fewest
        return len(self.starting) + (
            more if more < _MAX_DIFFERENCE else _MAX_DIFFERENCE
        ), self.begun


class Balance:
    """The flows of all processes. It is a sink of the events of the session."""

    wants: ClassVar[tuple[type, ...]] = (FlowLayer, FlowClose)

    def __init__(self) -> None:
        self.here: Final = Carrier()
        """The session."""
        self._carriers: dict[int, Carrier] = {}
        """By the number of the flow."""

    def choose(self, number: int, workers: Iterable[Carrier]) -> Carrier:
        """Who carries this flow. The number 0 is that of flows that publish nothing: these are not
        counted."""
        carriers = (self.here, *workers)
        fewest = min([len(each.open) for each in carriers])
        carrier = min(carriers, key=lambda each: each.load(fewest))
        carrier.begun += 1
        if number:
            carrier.starting.add(number)
            carrier.open.add(number)
            self._carriers[number] = carrier
        return carrier

    def publish(self, event: Published) -> None:
        number: int = event.flow  # type: ignore[union-attr]  # it wants nothing else
        if carrier := self._carriers.get(number):
            carrier.starting.discard(number)
            if type(event) is FlowClose:
                carrier.open.discard(number)
                del self._carriers[number]
