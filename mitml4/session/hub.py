"""Distributes events to the sinks that want them, and to the totals of the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mitml4.events import LayerEvent
from mitml4.session.totals import Totals
from mitml4.sinks.sink import Listener, Sink
from mitml4.sinks.updates import Published

__all__ = ["Hub"]


class Hub:
    """Calls every sink that wants an event, and waits for none."""

    def __init__(self, sinks: Iterable[Sink] = (), listeners: Iterable[Listener] = ()) -> None:
        """`listeners` get events too; they write nothing, so they drop nothing."""
        self.totals = Totals()
        self.sinks = list(sinks)
        """The sinks that have not been removed."""
        self._all_sinks = tuple(self.sinks)
        self._listeners = (self.totals, *listeners)
        self._takers: dict[type, tuple[Callable[[Any], None], ...]] = {}
        """The `publish` methods by class of event, filled when a class is first seen."""

    def wants(self, kind: type) -> bool:
        """Whether anybody takes events of this class, or events of a protocol with such a content:
        if not, none need be built. Costs a lookup in a dictionary; the answer may change while the
        session runs."""
        return bool(self._takers_of(kind))

    def publish(self, event: Published) -> None:
        kind = type(event.content) if isinstance(event, LayerEvent) else type(event)
        for take in self._takers_of(kind):
            take(event)

    def remove(self, sink: Sink) -> None:
        """Give this sink no more events."""
        self.sinks.remove(sink)
        self._takers.clear()

    @property
    def dropped_events(self) -> int:
        return sum(sink.dropped for sink in self._all_sinks)

    def _takers_of(self, kind: type) -> tuple[Callable[[Any], None], ...]:
        try:
            return self._takers[kind]
        except KeyError:
            listeners: tuple[Listener, ...] = (*self._listeners, *self.sinks)
            takers = tuple(each.publish for each in listeners if issubclass(kind, each.wants))
            self._takers[kind] = takers
            return takers
