"""Passes on the events of flows that match a filter, and holds them until that is known.

Theory of operation: a `FlowBuilder` turns the events that a filter can ask about into the model of
each undecided flow. After each of these events the filter is asked again, about the flow and about
its exchanges. What it says is final (filter/expression.py): a flow that can no longer match is
forgotten with its events; a flow that matches has what was held passed on in the order in which it
came. An exchange that does not match is left out of a flow that does.

The memory of what is held is bounded, and each flow has a share (shares.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field, replace
from itertools import chain, count
from operator import attrgetter
from typing import ClassVar, Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.engine.plaintext import PlaintextBegun, PlaintextMoved, PlaintextUpdate
from mitml4.events import (
    VITAL,
    ClientProbe,
    Event,
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    RuleApplied,
    weight,
)
from mitml4.filter.expression import Filter
from mitml4.model.builder import FlowBuilder
from mitml4.model.flow import Exchange, Flow
from mitml4.protocols.http.events import HttpEnd, HttpRequest, HttpResponse
from mitml4.sinks.shares import Shares
from mitml4.sinks.updates import Published

__all__ = ["Selection"]

_CAPACITY: Final = 32 << 20
"""Bytes of events that are held."""
_VITAL: Final = VITAL | {PlaintextBegun}
_VITAL_CAPACITY: Final = 256 << 20
"""The same for vital events."""
_COPY_BYTES: Final = 300
"""The memory of a copy of what moved, beside its bytes."""
_COPIES: Final = 2
"""An event that is held is also part of the model of its flow."""

Key: TypeAlias = tuple[int, int]
"""Depth and stream."""


@dataclass(slots=True)
class _Held:
    """An event that waits; `number` is its place in the order of all."""

    number: int
    event: Event | PlaintextUpdate
    size: int


@dataclass(slots=True)
class _Exchange:
    """An exchange that the filter has not decided, or has chosen."""

    exchange: Exchange
    is_chosen: bool = False
    held: list[_Held] = field(default_factory=list)


@dataclass(slots=True)
class _Flow:
    """A flow that the filter has not decided, or has chosen."""

    flow: Flow
    is_chosen: bool = False
    """Whether its events are passed on, except those of exchanges."""
    takes_all: bool = False
    """Whether all of its exchanges match, whatever they are."""
    has_exchanges: bool = False
    exchanges: dict[Key, _Exchange] = field(default_factory=dict)
    """Those that do not match are removed."""
    held: list[_Held] = field(default_factory=list)
    dropped: int = 0
    """Events for which there was no room."""


class Selection:
    """Takes events of all flows and updates."""

    wants: ClassVar[tuple[type, ...]] = (
        FlowOpen,
        FlowLayer,
        FlowError,
        RuleApplied,
        ClientProbe,
        FlowClose,
        HttpRequest,
        HttpResponse,
        HttpEnd,
    )
    """What filters can ask about."""

    def __init__(
        self,
        condition: Filter,
        pass_on: Callable[[Published], None],
        *,
        capacity: int = _CAPACITY,
        vital_capacity: int = _VITAL_CAPACITY,
    ) -> None:
        """`pass_on` is called with what is selected."""
        self.dropped = 0
        """Events of flows that match, for which there was no room while that was not known."""
        self._condition = condition
        self._pass_on = pass_on
        self._builder = FlowBuilder(with_headers=False)
        self._flows: dict[int, _Flow] = {}
        self._shares, self._vital_shares = Shares(capacity), Shares(vital_capacity)
        self._numbers = count()

    def publish(self, event: Published) -> None:
        number = getattr(event, "flow", None)
        if number is None:
            self._pass_on(event)
        elif isinstance(event, FlowOpen):
            self._open(event)
        elif flow := self._flows.get(number):
            if flow.takes_all or (flow.is_chosen and not isinstance(event, Event)):
                self._pass_on(event)
            elif isinstance(event, Event):
                self._take(flow, event)
            elif isinstance(event, PlaintextUpdate):
                self._hold_copy(flow, event)
            if isinstance(event, FlowClose):
                self._forget(flow)

    def _open(self, event: FlowOpen) -> None:
        self._builder.add(event)
        model = self._builder.flow(event.flow)
        assert model
        flow = self._flows[event.flow] = _Flow(model)
        if self._hold(flow, flow, event):
            self._decide_flow(flow)
        else:
            self.dropped += 1
            self._forget(flow)

    def _take(self, flow: _Flow, event: Event) -> None:
        match event:
            case FlowClose():
                self._builder.add(event)
                self._close(flow, event)
            case LayerEvent(content=HttpRequest()):
                self._begin_exchange(flow, event)
            case LayerEvent():
                self._take_content(flow, event)
            case _:
                self._builder.add(event)
                # That there is a change is all that filters ask about.
                flow.flow.edits = [each for each in flow.flow.edits if each.is_change][:1]
                self._hold_or_pass(flow, flow, event)
                self._decide_flow(flow)

    def _begin_exchange(self, flow: _Flow, event: LayerEvent) -> None:
        flow.has_exchanges = True
        self._builder.add(event)
        # The model keeps exchanges for as long as the flow; here that is until they are decided.
        exchange = _Exchange(flow.flow.exchanges.pop())
        key = exchange.exchange.depth, exchange.exchange.stream
        value = self._condition.decide(flow.flow, exchange.exchange)
        if value or (value is None and self._hold(flow, exchange, event)):
            flow.exchanges[key] = exchange
        if value:
            self._choose(flow, [exchange])
            self._pass_on(event)
        if key not in flow.exchanges or value:
            self._builder.forget_exchange(flow.flow.number, key)

    def _take_content(self, flow: _Flow, event: LayerEvent) -> None:
        """Take an event of a protocol. If it has a stream, it belongs to an exchange."""
        stream = getattr(event.content, "stream", None)
        if stream is None:
            self._hold_or_pass(flow, flow, event)
            return
        # A layer in a stream of HTTP/2 is one further in than the exchange that opened it.
        keys = (event.depth, stream), (event.depth - 1, stream)
        key = next((key for key in keys if key in flow.exchanges), None)
        if key is None:  # the exchange does not match
            return
        exchange = flow.exchanges[key]
        self._hold_or_pass(flow, exchange, event)
        if not exchange.is_chosen and isinstance(event.content, self.wants):
            self._builder.add(event)
            self._decide_exchanges(flow, [key])
        if exchange.is_chosen and isinstance(event.content, HttpEnd):
            del flow.exchanges[key]

    def _decide_flow(self, flow: _Flow) -> None:
        """Ask about the flow, whatever its exchanges will be; then about each of them."""
        value = self._condition.decide(flow.flow)
        if value:
            flow.takes_all = True
            self._choose(flow, flow.exchanges.values())
            flow.exchanges.clear()
            self._builder.forget(flow.flow.number)
        elif value is None:
            self._decide_exchanges(flow, list(flow.exchanges))
        elif not flow.is_chosen:
            self._forget(flow)

    def _decide_exchanges(self, flow: _Flow, keys: Iterable[Key]) -> None:
        """Ask about exchanges: choose those that match, remove those that do not."""
        chosen = []
        for key in keys:
            exchange = flow.exchanges[key]
            if exchange.is_chosen:
                continue
            value = self._condition.decide(flow.flow, exchange.exchange)
            if value:
                chosen.append(exchange)
            elif value is False:
                self._release(flow, flow.exchanges.pop(key).held)
            if value is not None:
                self._builder.forget_exchange(flow.flow.number, key)
        if chosen:
            self._choose(flow, chosen)

    def _close(self, flow: _Flow, close: FlowClose) -> None:
        """Now everything is known."""
        self._decide_exchanges(flow, list(flow.exchanges))
        if not flow.has_exchanges and self._condition.decide(flow.flow):
            self._choose(flow, [])
        if flow.is_chosen:
            self._pass_on(close)

    def _choose(self, flow: _Flow, exchanges: Iterable[_Exchange]) -> None:
        """Pass on what was held of a flow and of these exchanges, in the order in which it came."""
        flow.is_chosen = True
        self.dropped += flow.dropped
        flow.dropped = 0
        lists = [flow.held]
        for exchange in exchanges:
            exchange.is_chosen = True
            lists.append(exchange.held)
        for held in sorted(chain.from_iterable(lists), key=attrgetter("number")):
            self._pass_on(held.event)
        for each in lists:
            self._release(flow, each)

    def _hold_or_pass(self, flow: _Flow, of: _Flow | _Exchange, event: Event) -> None:
        if of.is_chosen:
            self._pass_on(event)
        else:
            self._hold(flow, of, event)

    def _hold(self, flow: _Flow, of: _Flow | _Exchange, event: Event) -> bool:
        """Keep an event; False if there is no room."""
        size = _COPIES * weight(event)
        if self._shares_of(event).take(flow.flow.number, size):
            of.held.append(_Held(next(self._numbers), event, size))
            return True
        flow.dropped += 1
        return False

    def _hold_copy(self, flow: _Flow, copy: PlaintextUpdate) -> None:
        """Keep what moved; where there is no room, how much it was."""
        if isinstance(copy, PlaintextMoved) and copy.data:
            size = len(copy.data) + _COPY_BYTES
            if self._shares.take(flow.flow.number, size):
                flow.held.append(_Held(next(self._numbers), copy, size))
                return
            flow.dropped += 1
            copy = replace(copy, data=b"", lost=len(copy.data))
        if self._vital_shares.take(flow.flow.number, _COPY_BYTES):
            flow.held.append(_Held(next(self._numbers), copy, _COPY_BYTES))
        else:
            self._forget(flow)

    def _shares_of(self, event: Event | PlaintextUpdate) -> Shares:
        if isinstance(event, PlaintextMoved):
            return self._shares if event.data else self._vital_shares
        return self._vital_shares if type(event) in _VITAL else self._shares

    def _release(self, flow: _Flow, held: list[_Held]) -> None:
        for each in held:
            self._shares_of(each.event).give_back(flow.flow.number, each.size)
        held.clear()

    def _forget(self, flow: _Flow) -> None:
        self._release(flow, flow.held)
        for exchange in flow.exchanges.values():
            self._release(flow, exchange.held)
        self._builder.forget(flow.flow.number)
        self._flows.pop(flow.flow.number, None)
