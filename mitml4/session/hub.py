"""Where events go: every sink that wants their type, and the totals of the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from mitml4.events import Event
from mitml4.session.totals import Totals

if TYPE_CHECKING:  # it brings trio along, which costs `detect` a fifth of its start
    from mitml4.sinks.sink import Sink

__all__ = ["Hub"]


class Hub:
    """Hands every event to the sinks that want it, at once and without waiting for any."""

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self.totals = Totals()
        self._sinks = list(sinks)
        self._takers: dict[type, tuple[Callable[[Any], None], ...]] = {}
        """Who takes events of a type, as far as it has been asked."""

    def wants(self, kind: type) -> bool:
        """Whether anybody takes events of this type: if not, none need be built. Costs a lookup in
        a dictionary; the answer may change while the session runs."""
        return bool(self._takers_of(kind))

    def publish(self, event: Event) -> None:
        for take in self._takers_of(type(event)):
            take(event)

    @property
    def dropped_events(self) -> int:
        return sum(sink.dropped for sink in self._sinks)

    def _takers_of(self, kind: type) -> tuple[Callable[[Any], None], ...]:
        try:
            return self._takers[kind]
        except KeyError:
            listeners: tuple[Totals | Sink, ...] = (self.totals, *self._sinks)
            takers = tuple(each.publish for each in listeners if issubclass(kind, each.wants))
            self._takers[kind] = takers
            return takers
