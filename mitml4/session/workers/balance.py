"""Which process carries the next flow: the session itself, or one of its workers.

Flows of which no layer is known yet are the work that lies ahead. A process that is busy otherwise,
as the session is with the events of all, keeps its flows longer in that state, so it gets fewer.
Flows that are open may be idle, so a large difference in their number says nothing: a process that
has just been started need not carry all that come.

A process that loses each flow at once, because it may have no more descriptors for example, has the
fewest. So after an error of its own, others are preferred for a while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import trio

from mitml4.events import FlowClose, FlowError, FlowLayer
from mitml4.sinks.updates import Published

__all__ = ["Balance", "Carrier"]

_MAX_DIFFERENCE: Final = 16
"""So many open flows more count."""
_AVOIDED_S: Final = 1.0
"""For so long, others are preferred to a process that has lost a flow by an error of its own; twice
as long each time, until one of its flows comes further."""
_MAX_AVOIDED_S: Final = 60.0


class Carrier:
    """A process that carries flows."""

    def __init__(self) -> None:
        self.starting = 0
        """How many of its flows have no layer that is known yet."""
        self.open = 0
        """How many flows it carries."""
        self.begun = 0
        self.avoided_s = 0.0
        """For how long it is avoided, or was, if none of its flows has come further since."""
        self.avoided_until = -math.inf

    def avoid(self, now_s: float) -> None:
        """Let others be preferred. The flows that had begun before add nothing."""
        if now_s >= self.avoided_until:
            self.avoided_s = min(max(_AVOIDED_S, 2 * self.avoided_s), _MAX_AVOIDED_S)
            self.avoided_until = now_s + self.avoided_s

    def renew(self, now_s: float) -> None:
        """It can carry flows, as one of them shows that has come further."""
        if now_s >= self.avoided_until:
            self.avoided_s = 0.0


class Balance:
    """The flows of all processes. It is a sink of the events of the session."""

    wants: ClassVar[tuple[type, ...]] = (FlowLayer, FlowError, FlowClose)

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self.here: Final = Carrier()
        """The session."""
        self._starting: dict[int, Carrier] = {}
        self._open: dict[int, Carrier] = {}
        """Who carries them, by the number of the flow."""
        self._has_avoided = False
        """Whether any may be avoided."""

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
        if not workers:
            return self.here
        carriers: Sequence[Carrier] = (self.here, *workers)
        if self._has_avoided:
            carriers = self._preferred(carriers)
        most = min([each.open for each in carriers]) + _MAX_DIFFERENCE
        chosen, *others = carriers
        least = chosen.starting + min(chosen.open, most), chosen.begun
        for each in others:
            load = each.starting + min(each.open, most), each.begun
            if load < least:
                chosen, least = each, load
        return chosen

    def _preferred(self, carriers: Sequence[Carrier]) -> Sequence[Carrier]:
        """Those that are not avoided, or all if all are."""
        now_s = self._clock()
        self._has_avoided = any(each.avoided_s for each in carriers)
        return [each for each in carriers if each.avoided_until <= now_s] or carriers

    def publish(self, event: Published) -> None:
        number: int = event.flow  # type: ignore[union-attr]  # it wants nothing else
        if type(event) is FlowError:
            if event.kind == "internal" and (failed := self._open.get(number)):
                failed.avoid(self._clock())
                self._has_avoided = True
            return
        if carrier := self._starting.pop(number, None):
            carrier.starting -= 1
            if carrier.avoided_s and type(event) is FlowLayer:
                carrier.renew(self._clock())
        if type(event) is FlowClose and (carrier := self._open.pop(number, None)):
            carrier.open -= 1
