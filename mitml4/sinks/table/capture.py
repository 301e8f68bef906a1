"""A table of flows: what `detect` shows a person.

Of a long capture it is a table for each so many flows, so that memory does not grow with it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from mitml4.events import Event, FlowClose, FlowLayer, FlowOpen, HttpRequest
from mitml4.printable import printable
from mitml4.protocols.conversation import Target
from mitml4.protocols.wire_text import text

__all__ = ["CaptureTable"]

_MOST_FACTS: Final = 3
_MOST_ROWS: Final = 1000


@dataclass(slots=True)
class _Flow:
    opened: FlowOpen
    name: str = ""
    facts: str = ""


@dataclass(slots=True)
class CaptureTable:
    """Keeps a row for each flow that has closed, and prints them in the order of their opening."""

    _open: dict[int, _Flow] = field(default_factory=dict)
    _rows: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _begun: bool = False

    def publish(self, event: Event) -> None:
        match event:
            case FlowOpen():
                self._open[event.flow] = _Flow(event)
            case FlowLayer():
                _describe(self._open[event.flow], event)
            case HttpRequest():
                flow = self._open[event.flow]
                flow.facts = flow.facts or f"{event.method} {event.url}"
            case FlowClose():
                self._rows[event.flow] = _cells(event.flow, self._open.pop(event.flow), event)
                if len(self._rows) == _MOST_ROWS:
                    self._print()

    def flush(self) -> None:
        """A table waits until it is complete: its columns are as wide as its rows want."""

    def finish(self) -> None:
        """Print what has not been printed yet."""
        if self._rows or not self._begun:
            self._print()

    def _print(self) -> None:
        self._begun = True
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("#", justify="right")
        table.add_column("client", overflow="fold")
        table.add_column("server", overflow="fold")
        table.add_column("stack", overflow="fold")
        table.add_column("name", overflow="ellipsis", no_wrap=True)
        table.add_column("facts", overflow="ellipsis", no_wrap=True)
        for title in ("↑", "↓", "s"):
            table.add_column(title, justify="right", no_wrap=True)
        for _, cells in sorted(self._rows.items()):
            table.add_row(*cells)
        self._rows.clear()
        # To rich, the address 2001:db8:a:1:: has an emoji in it.
        console = Console(highlight=False, markup=False, emoji=False)
        with console.capture() as capture:
            console.print(table)
        sys.stdout.write(capture.get())  # above the progress bar, where there is one


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
