"""Which process carries the next flow: the session itself, or one of its workers.

Flows of which no layer is known yet are the work that lies ahead. A process that is busy otherwise,
as the session is with the events of all, keeps its flows longer in that state, so it gets fewer.
Flows that are open may be idle, so a large difference in their number says nothing: a process that
has just been started need not carry all that come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from mitml4.events import FlowClose, FlowLayer
from mitml4.sinks.updates import Published

__all__ = ["Balance", "Carrier"]

_MAX_DIFFERENCE: Final = 16
"""So many open flows more count."""


class Carrier:
    """A process that carries flows."""

    def __init__(self) -> None:
        self.starting = 0
        """How many of its flows have no layer that is known yet."""
        self.open = 0
        """How many flows it carries."""
        self.begun = 0


class Balance:
    """The flows of all processes. It is a sink of the events of the session."""

    wants: ClassVar[tuple[type, ...]] = (FlowLayer, FlowClose)

    def __init__(self) -> None:
        self.here: Final = Carrier()
        """The session."""
        self._starting: dict[int, Carrier] = {}
        self._open: dict[int, Carrier] = {}
        """Who carries them, by the number of the flow."""

    def choose(self, number: int, workers: Sequence[Carrier]) -> Carrier:
        """Who carries this flow. The number 0 is that of flows that publish nothing: these are not
        counted."""
        chosen = self._least_busy(workers)
        chosen.begun += 1
        if number:
            chosen.starting += 1
            chosen.open += 1
            self._starting[number] = self._open[number] = chosen
        return chosen

    def _least_busy(self, workers: Sequence[Carrier]) -> Carrier:
        chosen = self.here
        if workers:
            most = min(chosen.open, *[each.open for each in workers]) + _MAX_DIFFERENCE
            least = chosen.starting + min(chosen.open, most), chosen.begun
            for each in workers:
                load = each.starting + min(each.open, most), each.begun
                if load < least:
                    chosen, least = each, load
        return chosen

    def publish(self, event: Published) -> None:
        number: int = event.flow  # type: ignore[union-attr]  # it wants nothing else
        if carrier := self._starting.pop(number, None):
            carrier.starting -= 1
        if type(event) is FlowClose and (carrier := self._open.pop(number, None)):
            carrier.open -= 1
