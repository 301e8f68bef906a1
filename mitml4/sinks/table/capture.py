"""The table that `detect` shows on a terminal.

A long capture gives one table per thousand flows, so that memory stays bounded.
"""

from __future__ import annotations

import sys
from dataclasses import field, fields
from typing import Any, ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.events import FlowClose, FlowLayer, FlowOpen, LayerEvent
from mitml4.model.names import NAMES, server_of
from mitml4.model.urls import split_url
from mitml4.printable import printable
from mitml4.protocols.conversation import Target
from mitml4.protocols.http.events import HttpRequest
from mitml4.protocols.wire_text import text
from mitml4.screen.sheet import SheetRow, sheet
from mitml4.screen.terminal import Color, wants_color, width_of
from mitml4.sinks.updates import Published

__all__ = ["CaptureTable"]

_MAX_FACTS: Final = 3
_MAX_ROWS: Final = 1000


@dataclass(slots=True)
class _Flow:
    opened: FlowOpen
    server: Target
    """Its best name: what an inner layer asked for, what DNS said, otherwise the address."""
    summary: str = ""
    requested_in: int = -1
    """The depth of the layer whose first request `summary` shows."""


@dataclass(slots=True)
class CaptureTable:
    """Prints a row for each closed flow, in the order in which they opened."""

    name: ClassVar[str] = "standard output"
    wants: ClassVar[tuple[type, ...]] = (FlowOpen, FlowLayer, HttpRequest, FlowClose)
    dropped: ClassVar[int] = 0

    color: Color = "auto"
    _open: dict[int, _Flow] = field(default_factory=dict)
    _rows: dict[int, SheetRow] = field(default_factory=dict)
    _begun: bool = False

    def publish(self, event: Published) -> None:
        match event:
            case FlowOpen():
                address = event.destination
                server = Target(event.name or address.ip, address.port)
                self._open[event.flow] = _Flow(event, server)
            case FlowLayer():
                _describe(self._open[event.flow], event)
            case LayerEvent(content=HttpRequest() as request):
                flow = self._open[event.flow]
                if event.depth > flow.requested_in:
                    flow.summary, flow.requested_in = _request(flow, request), event.depth
            case FlowClose():
                self._rows[event.flow] = _row(self._open.pop(event.flow), event)
                if len(self._rows) == _MAX_ROWS:
                    self._print()

    def flush(self) -> None:
        """Does nothing: the widths of the columns depend on all rows."""

    def finish(self) -> None:
        """Print the remaining rows."""
        if self._rows or not self._begun:
            self._print()

    def _print(self) -> None:
        self._begun = True
        rows = [row for _, row in sorted(self._rows.items())]
        self._rows.clear()
        styled = wants_color(self.color, sys.stdout)
        for line, style in sheet(rows, width_of(sys.stdout)):
            bold = styled and style == "bold"
            # Above the progress bar, where there is one.
            sys.stdout.write(f"\x1b[1m{line}\x1b[0m\n" if bold else f"{line}\n")


def _row(flow: _Flow, close: FlowClose) -> SheetRow:
    opened = flow.opened
    return SheetRow(
        flow=close.flow,
        side=opened.side and f"{opened.session_flow} {opened.side}",
        client=str(opened.client),
        server=printable(str(flow.server)) + ("/udp" if opened.transport == "udp" else ""),
        stack=close.stack,
        summary=printable(flow.summary),
        up=close.bytes_up,
        down=close.bytes_down,
        duration_s=close.duration_s,
    )


def _describe(flow: _Flow, layer: FlowLayer) -> None:
    """Note the innermost name, and the first details of the innermost layer that has any."""
    details = layer.details
    flow.server = server_of(details, flow.server) or flow.server
    if details is not None:
        others = (item.name for item in fields(details) if item.name not in NAMES)
        known = [shown for name in others if (shown := _value_text(getattr(details, name)))]
        flow.summary = ", ".join(known[:_MAX_FACTS]) or flow.summary


def _request(flow: _Flow, request: HttpRequest) -> str:
    """The request, without the host if the server's column shows it."""
    host, path = split_url(request.url)
    return f"{request.method} {path if host == flow.server.host else request.url}"


def _value_text(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, Target):
        return ""
    if isinstance(value, bytes):
        return text(value)
    return str(value) if isinstance(value, str | int) else ""
