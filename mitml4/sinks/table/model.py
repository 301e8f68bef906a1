"""The data of the live table, updated by each event in constant time.

Strings from the network are made printable and cut to a limited length when they come in, so that
their users need not do so.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import field, replace
from datetime import timedelta
from itertools import islice
from typing import ClassVar, Final, Literal, TypeAlias

from rich.cells import cell_len

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.events import (
    FAILURES,
    NOT_APPLIED,
    ClientProbe,
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    QuicRefused,
    RuleApplied,
    SessionStart,
)
from mitml4.model.names import server_of
from mitml4.model.urls import split_url
from mitml4.printable import printable
from mitml4.protocols.conversation import Target
from mitml4.protocols.http.events import HttpRequest, HttpResponse
from mitml4.protocols.policy import NOT_ALLOWED
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.protocols.registry import EVENT_TYPES
from mitml4.screen.columns import join_stack
from mitml4.sinks.updates import BytesMoved, Note, OutputFailed, Published, QuicBlocked, Stopping

__all__ = ["MAX_ROWS", "Row", "State", "TableModel"]

MAX_ROWS: Final = 10_000
"""Flows that are kept. Beyond it, the flow that closed first is removed."""
_MAX_TEXT: Final = 300
_MAX_REFUSED: Final = 1024
_FALLBACK_WITHIN: Final = timedelta(seconds=30)

_SUMMARISED: Final = tuple(
    each for each in EVENT_TYPES if each.summary is not ProtocolEvent.summary
)
"""The events of protocols that say in a few words what they are."""

State: TypeAlias = Literal["open", "closed", "failed", "blocked"]


@dataclass(slots=True, kw_only=True)
class Row:
    """One flow."""

    flow: int
    client: str
    server: str
    """Its best name: what an inner layer asked for, otherwise the address."""
    port: int
    is_named: bool = False
    """Whether the name was asked for by an inner layer."""
    is_proxy: bool = False
    """Whether HTTP requests contain absolute URLs."""
    stack: tuple[str, ...] = ()
    state: State = "open"
    passed_through: bool = False
    up: int = 0
    down: int = 0
    rate: float | None = None
    """Bytes per second in both directions; None: unknown, or none."""
    is_edited: bool = False
    """Whether a rule has changed something."""
    fell_back: bool = False
    """Whether its client had tried QUIC before, which was refused."""
    refused_sni: str | None = None
    """The name for which the client had tried it, where that is known."""
    process: str = ""
    """The name of the process that has connected, where it is known."""
    info: str = ""
    """The last request, or the failure."""
    refusal: str = ""
    """What of it was refused last, and why."""
    request: tuple[int, str] | None = None
    """The stream of the last request, and its text."""
    measured_at: float | None = None
    """When its bytes were last measured, in seconds."""

    @property
    def text(self) -> str:
        """`info`, whether the flow was edited, and whether QUIC was refused before."""
        before = ("QUIC refused, by TCP", self.fell_back), ("edited", self.is_edited)
        said = [text for text, is_so in before if is_so]
        return ": ".join([*said, self.info] if self.info else said)


@dataclass(slots=True)
class TableModel:
    """Everything that the table can show."""

    wants: ClassVar[tuple[type, ...]] = (
        SessionStart,
        FlowOpen,
        FlowLayer,
        HttpRequest,
        HttpResponse,
        *_SUMMARISED,
        FlowError,
        RuleApplied,
        ClientProbe,
        FlowClose,
        Note,
        OutputFailed,
        Stopping,
        QuicBlocked,
        QuicRefused,
        BytesMoved,
    )

    session: SessionStart | None = None
    notes: tuple[str, ...] = ()
    """Notes to the user."""
    quic_blocked: int = 0
    stopping: bool = False
    version: int = 0
    """Another one after each event by which what is shown may change."""
    flows: int = 0
    open: int = 0
    failed: int = 0
    """Flows in which something failed, open or closed."""
    widest_server: int = 0
    widest_client: int = 0
    widest_stack: int = 0
    widest_process: int = 0
    """Width in cells of the widest text so far."""
    bytes_up: int = 0
    bytes_down: int = 0
    """Of all flows; for open ones as of the last measurement."""
    has_several_processes: bool = False
    """Whether not all flows are of one process, or of none that is known."""
    _process: str | None = None
    """That of the first flow."""
    _refused: dict[tuple[str, Address], QuicRefused] = field(default_factory=dict)
    """The last refusal of QUIC, by client and server; the oldest are forgotten."""
    _rows: OrderedDict[int, Row] = field(default_factory=OrderedDict)
    _closed: deque[int] = field(default_factory=deque)
    _failures: deque[int] = field(default_factory=deque)
    """Closed flows that failed; they are kept longer."""
    _failing: set[int] = field(default_factory=set)
    """Open flows in which something has failed."""

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, count: int, *, skip: int = 0, failures: bool = False) -> list[Row]:
        """`count` rows, oldest first, ending `skip` rows before the newest. Not copies.

        `failures`: only flows that failed or were blocked.
        """
        shown: Iterable[Row] = reversed(self._rows.values())
        if failures:
            shown = (row for row in shown if row.state in ("failed", "blocked"))
        return list(islice(shown, skip, skip + count))[::-1]

    def listed(self, *, failures: bool = False) -> list[Row]:
        """All rows, oldest first. Not copies. Any thread may ask."""
        rows = list(self._rows.values())
        return [row for row in rows if row.state in ("failed", "blocked")] if failures else rows

    def row(self, flow: int) -> Row | None:
        """The row of a flow, if it is kept. Not a copy."""
        return self._rows.get(flow)

    def copy(self) -> TableModel:
        """A copy that later events do not change."""
        rows = OrderedDict((number, replace(row)) for number, row in self._rows.items())
        return replace(
            self,
            _rows=rows,
            _closed=self._closed.copy(),
            _failures=self._failures.copy(),
            _failing=self._failing.copy(),
            _refused=self._refused.copy(),
        )

    def add(self, event: Published) -> None:
        """Update the model with an event."""
        self.version += not isinstance(event, BytesMoved)  # of which most say that none have
        match event:
            case SessionStart():
                self.session = event
            case Note():
                self.notes = (*self.notes, event.text)
            case OutputFailed():
                self.notes = (*self.notes, event.reason)
            case QuicBlocked():
                self.quic_blocked = event.count
            case QuicRefused():
                self._refuse(event)
            case Stopping():
                self.stopping = True
            case FlowOpen():
                self._open(event)
            case FlowError() if event.flow not in self._failing:
                self._failing.add(event.flow)
                self.failed += 1
            case FlowClose():
                self.open -= 1
                self.failed += event.reason in FAILURES and event.flow not in self._failing
                self._failing.discard(event.flow)
                if event.flow not in self._rows:
                    self.bytes_up += event.bytes_up
                    self.bytes_down += event.bytes_down
        if row := self._rows.get(getattr(event, "flow", 0)):
            self._update(row, event)
            self._measure_text(row)

    def _measure_text(self, row: Row) -> None:
        server = cell_len(str(Target(row.server, row.port)))
        self.widest_server = max(self.widest_server, server)
        self.widest_process = max(self.widest_process, cell_len(row.process))
        self.widest_client = max(self.widest_client, cell_len(row.client))
        self.widest_stack = max(self.widest_stack, cell_len(join_stack(row.stack)))

    def _open(self, event: FlowOpen) -> None:
        self.flows += 1
        self.open += 1
        if len(self._rows) >= MAX_ROWS:
            self._forget_one()
        process = _shown(event.process.name) if event.process else ""
        self._process = process if self._process is None else self._process
        self.has_several_processes |= process != self._process
        refused = self._refusal_before(event)
        self._rows[event.flow] = Row(
            flow=event.flow,
            client=event.client.ip,
            server=_shown(event.name or event.destination.ip),
            port=event.destination.port,
            fell_back=refused is not None,
            refused_sni=refused.sni if refused else None,
            process=process,
        )

    def _refuse(self, event: QuicRefused) -> None:
        ends = event.client.ip, event.destination
        self._refused.pop(ends, None)
        if len(self._refused) >= _MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[ends] = event

    def _refusal_before(self, event: FlowOpen) -> QuicRefused | None:
        """What its client has just tried with the same port of the same server by QUIC."""
        refused = self._refused.get((event.client.ip, event.destination))
        is_recent = refused is not None and event.time - refused.time <= _FALLBACK_WITHIN
        return refused if is_recent else None

    def _forget_one(self) -> None:
        """Remove the flow that closed first, preferably one that did not fail; the oldest flow, if
        all are open."""
        if closed := self._closed or self._failures:
            del self._rows[closed.popleft()]
            return
        _, row = self._rows.popitem(last=False)
        self._move(row, 0, 0)  # its flow.close will count all of its bytes

    def _measure(self, row: Row, moved: BytesMoved) -> None:
        """Set the bytes of a flow, and its rate since the last measurement."""
        count = moved.up - row.up + moved.down - row.down
        self.version += bool(count or row.rate)
        if row.measured_at is not None and moved.at_s > row.measured_at:
            row.rate = count / (moved.at_s - row.measured_at)
        row.measured_at = moved.at_s
        self._move(row, moved.up, moved.down)

    def _move(self, row: Row, up: int, down: int) -> None:
        """Set the total bytes of a flow."""
        self.bytes_up += up - row.up
        self.bytes_down += down - row.down
        row.up, row.down = up, down

    def _update(self, row: Row, event: Published) -> None:
        match event:
            case BytesMoved():
                self._measure(row, event)
            case FlowLayer():
                _add_layer(row, event)
            case LayerEvent():
                _add_content(row, event.content)
            case ClientProbe():
                row.info = f"probe {event.case}: {event.outcome}"
            case RuleApplied():
                row.is_edited |= event.what not in NOT_APPLIED
            case FlowError():
                row.info = _shown(f"{event.side}: {event.reason}")
                row.state = "failed"
                if (event.side, event.stage, event.kind) == ("client", "relay", "refused"):
                    row.refusal = _shown(event.reason)
            case FlowClose():
                self._move(row, event.bytes_up, event.bytes_down)
                _close(row, event)
                (self._closed if row.state == "closed" else self._failures).append(row.flow)


def _add_layer(row: Row, event: FlowLayer) -> None:
    stack = [*row.stack[: event.depth], *[""] * (event.depth - len(row.stack))]
    row.stack = (*stack, event.protocol, *row.stack[event.depth + 1 :])
    if named := server_of(event.details, Target(row.server, row.port)):
        row.server, row.port, row.is_named = _shown(named.host), named.port, True
    row.is_proxy |= getattr(event.details, "absolute_form", False)
    sni = getattr(event.details, "sni", None)
    if sni and row.refused_sni and sni != row.refused_sni:
        row.fell_back = False  # another program's, or for another site at the address
    if event.action == "passthrough":
        row.passed_through = True
        reason = getattr(event.details, "passthrough", None)
        row.info = _shown(f"{reason}, passed through" if reason else "passed through")


def _add_content(row: Row, content: ProtocolEvent) -> None:
    match content:
        case HttpRequest():
            _add_request(row, content)
        case HttpResponse() if row.request and row.request[0] == content.stream:
            row.info = f"{content.status} {row.request[1]}"
        case _ if content.summary:
            row.info = _shown(content.summary)


def _add_request(row: Row, request: HttpRequest) -> None:
    host, path = split_url(request.url)
    if host and not row.is_named and not row.is_proxy:
        row.server, row.is_named = _shown(host), True
    # Scheme and host are in another column.
    what = _shown(f"{request.method} {request.url if row.is_proxy else path}")
    row.request = request.stream, what
    row.info = what


def _close(row: Row, event: FlowClose) -> None:
    row.stack = event.stack
    row.rate = None
    if event.reason in ("blocked", "denied"):
        row.state, row.info = "blocked", event.reason
        plain = f"{Target(row.server, row.port)} is {NOT_ALLOWED}"
        if row.refusal not in ("", plain):  # not what the line says anyway
            row.info = f"{event.reason}: {row.refusal}"
    elif event.reason not in FAILURES:
        row.state = "closed" if row.state == "open" else row.state
    elif row.state == "open":
        row.state = "failed"
        row.info = ", ".join(filter(None, (event.reason, row.info)))
    elif not row.info:
        row.info = event.reason


def _shown(text: str) -> str:
    return printable(text[:_MAX_TEXT])
