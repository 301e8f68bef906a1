"""A table of flows, printed once: what `detect` shows a person."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from rich.console import Console
from rich.table import Table

from mitml4.events import Event, FlowClose, FlowLayer, FlowOpen, HttpRequest, text
from mitml4.protocols.conversation import Target
from mitml4.sinks.printable import printable

__all__ = ["FlowList"]

_MOST_FACTS = 3


@dataclass(slots=True)
class _Flow:
    opened: FlowOpen
    name: str = ""
    facts: str = ""
    close: FlowClose | None = None


@dataclass(slots=True)
class FlowList:
    """Keeps a row for each flow, and prints them in the order of their opening."""

    _flows: dict[int, _Flow] = field(default_factory=dict)

    def publish(self, event: Event) -> None:
        match event:
            case FlowOpen():
                self._flows[event.flow] = _Flow(event)
            case FlowLayer():
                _describe(self._flows[event.flow], event)
            case HttpRequest():
                flow = self._flows[event.flow]
                flow.facts = flow.facts or f"{event.method} {event.url}"
            case FlowClose():
                self._flows[event.flow].close = event

    def print(self) -> None:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("#", justify="right")
        table.add_column("client", overflow="fold")
        table.add_column("server", overflow="fold")
        table.add_column("stack", overflow="fold")
        table.add_column("name", overflow="ellipsis", no_wrap=True)
        table.add_column("facts", overflow="ellipsis", no_wrap=True)
        for title in ("↑", "↓", "s"):
            table.add_column(title, justify="right", no_wrap=True)
        for number, flow in self._flows.items():
            if flow.close:
                table.add_row(*_cells(number, flow, flow.close))
        Console(highlight=False, markup=False).print(table)


def _cells(number: int, flow: _Flow, close: FlowClose) -> tuple[str, ...]:
    return (
        str(number),
        str(flow.opened.client),
        str(flow.opened.destination),
        " › ".join(close.stack) or "–",
        printable(flow.name),
        printable(flow.facts),
        f"{close.bytes_up:,}",
        f"{close.bytes_down:,}",
        f"{close.duration_s:.2f}",
    )


def _describe(flow: _Flow, layer: FlowLayer) -> None:
    """The innermost name, and the first few facts of the innermost layer that has any."""
    details = layer.details
    for attribute in ("sni", "host", "target"):
        value = getattr(details, attribute, None)
        if value:
            flow.name = str(value)
    if details is not None:
        known = [shown for item in fields(details) if (shown := _fact(getattr(details, item.name)))]
        flow.facts = ", ".join(known[:_MOST_FACTS]) or flow.facts


def _fact(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, Target):
        return ""
    if isinstance(value, bytes):
        return text(value)
    return str(value) if isinstance(value, str | int) else ""
