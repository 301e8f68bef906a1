"""Distributes events to the sinks that want them, and to the totals of the session."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from mitml4.events import LayerEvent
from mitml4.session.reporting.totals import Totals
from mitml4.sinks.sink import EventListener, Sink
from mitml4.sinks.updates import Published

if TYPE_CHECKING:
    from mitml4.filter.expression import Filter
    from mitml4.sinks.selection import Selection

__all__ = ["Hub"]

Takers: TypeAlias = tuple[Callable[[Any], None], ...]


class Hub:
    """Calls every sink that wants an event, and waits for none."""

    def __init__(
        self,
        sinks: Iterable[Sink] = (),
        listeners: Iterable[EventListener] = (),
        *,
        condition: Filter | None = None,
        unfiltered: Collection[Sink] = (),
        on_failure: Callable[[Sink, Exception], None] | None = None,
    ) -> None:
        """`listeners` get events too; they write nothing, so they drop nothing. `condition`: sinks
        get only events that match it, except those in `unfiltered`. `on_failure` is told of a sink
        that has raised an exception, after it was removed; without it, the exception goes on."""
        self.totals = Totals()
        self.sinks = list(sinks)
        """The sinks that have not been removed."""
        self._all_sinks = tuple(self.sinks)
        self._listeners = (self.totals, *listeners)
        self._unfiltered = unfiltered
        self._on_failure = on_failure
        self._selection = self._selecting(condition) if condition else None
        self._takers: dict[type, Takers] = {}
        """The `publish` methods by class of event, filled when a class is first seen."""
        self.lost_events = 0
        """Events that have not come here, since workers had no room for them."""
        self._selected_takers: dict[type, Takers] = {}
        """The same of what the selection passes on."""

    def wants(self, kind: type) -> bool:
        """Whether anybody takes events of this class, or events of a protocol with such a content:
        if not, none need be built. Costs a lookup in a dictionary; the answer may change while the
        session runs."""
        takers = self._takers.get(kind)
        return bool(self._takers_of(kind) if takers is None else takers)

    def takers_all_want(self, kind: type, instead: type) -> bool:
        """Whether all who take events of a class take another class too."""
        return all(issubclass(instead, _wants(take)) for take in self._takers_of(kind))

    def publish(self, event: Published) -> None:
        kind: type = type(event.content) if type(event) is LayerEvent else type(event)
        takers = self._takers.get(kind)
        self._give(event, self._takers_of(kind) if takers is None else takers)

    def count(self, event: Published) -> None:
        """The same for an event that the sinks have already: only the totals are told of it."""
        self._give(event, _publishers(_kind(event), (self.totals,)))

    def _give(self, event: Published, takers: Takers) -> None:
        for take in takers:
            try:
                take(event)
            except Exception as error:  # a fault of ours in a sink is not the flow's
                self._remove_taker(take, error)

    def _remove_taker(self, take: Callable[[Any], None], error: Exception) -> None:
        sink = getattr(take, "__self__", None)
        if self._on_failure is None or sink not in self._all_sinks:
            raise error
        self.remove(sink)
        self._on_failure(sink, error)

    def remove(self, sink: Sink) -> None:
        """Give this sink no more events."""
        self.sinks = [each for each in self.sinks if each is not sink]
        self._takers.clear()
        self._selected_takers.clear()

    @property
    def dropped_events(self) -> int:
        not_held = self._selection.dropped if self._selection else 0
        return self.lost_events + not_held + sum(sink.dropped for sink in self._all_sinks)

    def _selecting(self, condition: Filter) -> Selection:
        from mitml4.sinks.selection import Selection  # most sessions have no filter

        return Selection(condition, self._pass_on)

    def _pass_on(self, event: Published) -> None:
        """Give the filtered sinks an event that was selected."""
        kind = _kind(event)
        if kind not in self._selected_takers:
            self._selected_takers[kind] = _publishers(kind, self._filtered_sinks)
        self._give(event, self._selected_takers[kind])

    @property
    def _filtered_sinks(self) -> list[Sink]:
        return [sink for sink in self.sinks if self._selection and sink not in self._unfiltered]

    def _takers_of(self, kind: type) -> Takers:
        try:
            return self._takers[kind]
        except KeyError:
            filtered = self._filtered_sinks
            direct = [sink for sink in self.sinks if sink not in filtered]
            takers = _publishers(kind, (*self._listeners, *direct))
            if self._selection and (
                issubclass(kind, self._selection.wants) or _publishers(kind, filtered)
            ):
                takers = (*takers, self._selection.publish)
            self._takers[kind] = takers
            return takers


def _wants(take: Callable[[Any], None]) -> tuple[type, ...]:
    wants: tuple[type, ...] = getattr(getattr(take, "__self__", None), "wants", ())
    return wants


def _kind(event: Published) -> type:
    return type(event.content) if isinstance(event, LayerEvent) else type(event)


def _publishers(kind: type, listeners: Iterable[EventListener]) -> Takers:
    return tuple(each.publish for each in listeners if issubclass(kind, each.wants))
