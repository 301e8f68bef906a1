"""What the live table shows, kept up to date event by event, each in constant time.

Strings from the network are made printable and cut to a sensible length on their way in, so that
nothing behind this module has to think of it.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Literal, TypeAlias

from mitml4.events import (
    Event,
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    HttpRequest,
    HttpResponse,
    SessionStart,
    WebSocketMessage,
)
from mitml4.printable import printable
from mitml4.protocols.conversation import Target
from mitml4.sinks.sink import Counters

__all__ = ["MAX_ROWS", "Row", "State", "TableModel"]

MAX_ROWS: Final = 1000
"""Flows that are kept; beyond it the one that closed first goes."""
_MAX_TEXT: Final = 300
_FAILURES: Final = {"reset", "refused", "timeout", "error"}
_AUTHORITY_END: Final = re.compile("[/?#]")  # RFC 3986 §3.2
_PORT: Final = re.compile(r":[0-9]*$")
_SIDES: Final = {"ingress": "client", "egress": "server"}

State: TypeAlias = Literal["open", "closed", "failed", "blocked"]


@dataclass(slots=True, kw_only=True)
class Row:
    """One flow."""

    flow: int
    client: str
    server: str
    """By its best name: what an inner layer asked for, else the address."""
    port: int
    is_named: bool = False
    """Whether an inner layer has asked for that server."""
    is_proxy: bool = False
    """Whether the requests of HTTP name their servers themselves."""
    stack: tuple[str, ...] = ()
    state: State = "open"
    passed_through: bool = False
    up: int = 0
    down: int = 0
    rate: float | None = None
    """Bytes a second in both directions; None: not known, or none."""
    info: str = ""
    """The last request, or why the flow is not as it should be."""
    request: tuple[int, str] | None = None
    """The last request's stream, and what was asked."""
    measured_at: float | None = None
    """When its bytes were last looked at, in seconds."""


@dataclass(slots=True)
class TableModel:
    """All that the table can show."""

    session: SessionStart | None = None
    notes: Sequence[str] = ()
    """What the user should know of how this session intercepts."""
    quic_blocked: int = 0
    stopping: bool = False
    flows: int = 0
    open: int = 0
    failed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    """Of all flows; of an open one as much as was seen when it was last measured."""
    _rows: OrderedDict[int, Row] = field(default_factory=OrderedDict)
    _closed: deque[int] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, count: int, *, skip: int = 0) -> list[Row]:
        """`count` rows, oldest first, that end `skip` rows before the newest. Not copies."""
        newest_first = islice(reversed(self._rows.values()), skip, skip + count)
        return list(newest_first)[::-1]

    def measure(self, row: Row, counters: Counters, now: float) -> None:
        """Look at the bytes of an open flow, and work out the rate since the last look."""
        moved = counters.up - row.up + counters.down - row.down
        if row.measured_at is not None and now > row.measured_at:
            row.rate = moved / (now - row.measured_at)
        row.measured_at = now
        self._move(row, counters.up, counters.down)

    def row(self, flow: int) -> Row | None:
        """The row of a flow, while it is kept. Not a copy."""
        return self._rows.get(flow)

    def copy(self) -> TableModel:
        """A picture that later events do not change."""
        rows = OrderedDict((number, replace(row)) for number, row in self._rows.items())
        return replace(self, _rows=rows, _closed=self._closed.copy())

    def add(self, event: Event) -> None:
        """Take an event in."""
        match event:
            case SessionStart():
                self.session = event
            case FlowOpen():
                self._open(event)
            case FlowClose():
                self.open -= 1
                self.failed += event.reason in _FAILURES
                if event.flow not in self._rows:
                    self.bytes_up += event.bytes_up
                    self.bytes_down += event.bytes_down
        if row := self._rows.get(getattr(event, "flow", 0)):
            self._update(row, event)

    def _open(self, event: FlowOpen) -> None:
        self.flows += 1
        self.open += 1
        if len(self._rows) >= MAX_ROWS:
            self._forget_one()
        self._rows[event.flow] = Row(
            flow=event.flow,
            client=event.client.ip,
            server=_shown(event.name or event.destination.ip),
            port=event.destination.port,
        )

    def _forget_one(self) -> None:
        """The flow that closed first; the oldest, if all are open."""
        if self._closed:
            del self._rows[self._closed.popleft()]
            return
        _, row = self._rows.popitem(last=False)
        self._move(row, 0, 0)  # its close will count all of it

    def _move(self, row: Row, up: int, down: int) -> None:
        """A flow has moved so much, all in all."""
        self.bytes_up += up - row.up
        self.bytes_down += down - row.down
        row.up, row.down = up, down

    def _update(self, row: Row, event: Event) -> None:
        match event:
            case FlowLayer():
                _add_layer(row, event)
            case HttpRequest():
                _add_request(row, event)
            case HttpResponse() if row.request and row.request[0] == event.stream:
                row.info = f"{event.status} {row.request[1]}"
            case WebSocketMessage():
                row.info = _shown(f"{event.opcode}, {event.size} B {event.direction}")
            case FlowError():
                row.info = _shown(f"{_SIDES[event.side]}: {event.reason}")
                row.state = "failed"
            case FlowClose():
                self._closed.append(row.flow)
                self._move(row, event.bytes_up, event.bytes_down)
                _close(row, event)


def _add_layer(row: Row, event: FlowLayer) -> None:
    stack = [*row.stack[: event.depth], *[""] * (event.depth - len(row.stack))]
    row.stack = (*stack, event.protocol, *row.stack[event.depth + 1 :])
    target = getattr(event.details, "target", None)
    if isinstance(target, Target):
        row.server, row.port, row.is_named = _shown(target.host), target.port, True
    if name := getattr(event.details, "sni", None):
        row.server, row.is_named = _shown(name), True
    row.is_proxy |= getattr(event.details, "absolute_form", False)
    if event.action == "passthrough":
        row.passed_through = True
        reason = getattr(event.details, "passthrough", None)
        row.info = _shown(f"{reason}, passed through" if reason else "passed through")


def _add_request(row: Row, event: HttpRequest) -> None:
    host, path = _split(event.url)
    if host and not row.is_named and not row.is_proxy:
        row.server, row.is_named = _shown(host), True
    # Without scheme and host, which another column shows.
    what = _shown(f"{event.method} {event.url if row.is_proxy else path}")
    row.request = event.stream, what
    row.info = what


def _close(row: Row, event: FlowClose) -> None:
    row.stack = event.stack
    row.rate = None
    if event.reason == "blocked":
        row.state, row.info = "blocked", "blocked"
    elif event.reason not in _FAILURES:
        row.state = "closed" if row.state == "open" else row.state
    elif row.state == "open":
        row.state = "failed"
        row.info = ", ".join(filter(None, (event.reason, row.info)))
    elif not row.info:
        row.info = event.reason


def _split(url: str) -> tuple[str, str]:
    """The host, without a port, and the path; no host where it is no URL (`*`, an authority)."""
    _, separator, rest = url.partition("://")
    if not separator:
        return "", url
    authority = _AUTHORITY_END.split(rest, 1)[0]
    path = rest.removeprefix(authority)
    return _PORT.sub("", authority).strip("[]"), path if path.startswith("/") else f"/{path}"


def _shown(text: str) -> str:
    return printable(text[:_MAX_TEXT])
