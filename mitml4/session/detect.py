"""Reads captures, and gives the same events as live traffic."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from datetime import UTC, datetime
from typing import Final, TypeAlias

from mitml4 import __version__
from mitml4.capture import reports
from mitml4.capture.files.comments import CaptureSide
from mitml4.capture.flow import Flow
from mitml4.capture.follow import Copies, Statistics, follow
from mitml4.capture.packet import Packet
from mitml4.capture.sharing import Share
from mitml4.capture.tls.secrets import Secrets
from mitml4.dataclass import dataclass
from mitml4.encoding import renumbered
from mitml4.engine.plaintext import Plaintext, PlaintextMoved
from mitml4.errors import CaptureError
from mitml4.events import (
    Action,
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    LayerEvent,
    SessionStart,
)
from mitml4.protocols.conversation import Direction
from mitml4.protocols.payload import Shown
from mitml4.session.reporting.hub import Hub
from mitml4.session.reporting.totals import Totals
from mitml4.sinks.jsonl import Line

__all__ = ["CaptureEvent", "CaptureOutcome", "CaptureSession"]

CaptureEvent: TypeAlias = FlowOpen | FlowLayer | LayerEvent | FlowError | FlowClose

_MAX_SIDES: Final = 64
"""Only those of the packets that are being read."""

_FIRST_S: Final = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST_S: Final = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureOutcome:
    """What a process tells of the capture that it has read, beside its events."""

    totals: Totals = field(default_factory=Totals)
    dropped_events: int = 0
    cut_short: int = 0
    failure: CaptureError | None = None
    secrets: tuple[bytes, ...] = ()
    """The lines of key logs in it."""


@dataclass(slots=True)
class CaptureSession:
    """The events of one capture after another; flow numbers continue."""

    hub: Hub = field(default_factory=Hub)
    """Where `start`, `read` and `stop` publish them."""
    tunnels: bool = True
    shown: Shown = field(default_factory=Shown)
    secrets: Secrets = field(default_factory=Secrets)
    """Secrets that decrypt TLS; captures may add some."""
    cut_short: int = 0
    """Flows that were not followed to their end, to limit memory."""
    flows: int = 0
    """Flows so far, in all captures."""
    _brought: list[bytes] = field(default_factory=list)
    _sides: dict[float, CaptureSide] = field(default_factory=dict)
    _before: int = 0
    """Flows in the captures before this one."""

    def start(self) -> None:
        self.hub.publish(
            SessionStart(
                version=__version__,
                mode="detect",
                interfaces=(),
                listeners=(),
                ca=None,
                table=None,
                pid=os.getpid(),
            )
        )

    def read(
        self,
        packets: Iterable[Packet],
        *,
        told: int = 0,
        on_told: Callable[[], object] = lambda: None,
    ) -> None:
        """Publish the events of a capture, except the first ones where so many are `told`;
        `on_told` is called after those. Raises CaptureError where it is broken, after all that
        could be read."""
        copies = self._copies if self.hub.wants(PlaintextMoved) else None
        for number, event in enumerate(self.events(packets, self.hub.wants, copies)):
            if number < told:
                self.hub.count(event)
                if number + 1 == told:
                    on_told()
            else:
                self.hub.publish(event)

    def _copies(self, flow: Flow, clock_ns: Callable[[], int], port: int | None) -> Plaintext:
        number = self._before + flow.number
        return Plaintext(self.hub.publish, clock_ns, flow=number, port=port)

    def events(
        self,
        packets: Iterable[Packet],
        wants: Callable[[type], bool] | None = None,
        copies: Copies | None = None,
    ) -> Iterator[CaptureEvent]:
        """The events of a capture; of protocols' events, all or those whose class is wanted. Raises
        CaptureError where it is broken, after all that could be read. `copies` makes what takes the
        copies of decrypted TLS."""
        return self.events_of(self.reports_of(packets, copies), wants)

    def reports_of(
        self, packets: Iterable[Packet], copies: Copies | None = None, share: Share | None = None
    ) -> Iterator[reports.Report]:
        """The same before events are made of it. `share`: which flows are followed."""
        self._before = self.flows
        self._sides.clear()
        statistics = Statistics()
        try:
            yield from follow(
                packets,
                tunnels=self.tunnels,
                secrets=self.secrets,
                shown=self.shown,
                copies=copies,
                share=share,
                side_of=self._sides.get,
                statistics=statistics,
            )
        finally:
            self.cut_short += statistics.evicted

    def events_of(
        self, told: Iterable[reports.Report], wants: Callable[[type], bool] | None = None
    ) -> Iterator[CaptureEvent]:
        """The events of reports; of protocols' events, all or those whose class is wanted."""
        time_s, time = 0.0, _date(0.0)
        for report in told:
            if report.time_s != time_s:
                time_s, time = report.time_s, _date(report.time_s)
            if not isinstance(report, reports.Happened):
                yield self._flow_event(report, time)
            elif wants is None or wants(type(report.protocol_event)):
                yield self._layer_event(report, time)

    def add(self, outcome: CaptureOutcome, lines: Iterable[bytes]) -> None:
        """Publish the lines of a capture that another process has read, and count it."""
        self.add_lines(renumbered(some, self.flows) for some in lines)
        self.count(outcome)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Publish lines of events, some whole ones at a time, with the numbers that they have."""
        for some in lines:
            self.hub.publish(Line(0, len(some), some))

    def count(self, outcome: CaptureOutcome) -> None:
        """What was read by another process is told."""
        self.flows += outcome.totals.flows
        self.hub.totals.add_captured(outcome.totals)
        self.hub.lost_events += outcome.dropped_events
        self.cut_short += outcome.cut_short
        for lines_of_secrets in outcome.secrets:
            self.secrets.add(lines_of_secrets)

    def outcome(self, failure: CaptureError | None) -> CaptureOutcome:
        """What another process has to know of the only capture that was read, beside its events."""
        return CaptureOutcome(
            totals=self.hub.totals,
            dropped_events=self.hub.dropped_events,
            cut_short=self.cut_short,
            failure=failure,
            secrets=tuple(self._brought),
        )

    def stop(self, reason: str = "done") -> None:
        """Publish `session.stop`, after the last capture. `reason`: what was wrong, if anything."""
        self.hub.publish(self.hub.totals.stop(reason, self.hub.dropped_events))

    def add_secrets(self, lines: bytes) -> None:
        """Use the secrets of a key log that is in the capture."""
        if self.secrets.add(lines):
            self._brought.append(lines)

    def add_comment(self, time_s: float, comment: str) -> None:
        """Remember the side of the flow that may begin with the packet of this time."""
        if side := CaptureSide.parse(comment):
            self._sides[time_s] = side
            if len(self._sides) > _MAX_SIDES:
                del self._sides[next(iter(self._sides))]

    def _layer_event(self, report: reports.Happened, time: datetime) -> LayerEvent:
        content = report.protocol_event
        return LayerEvent(
            time=time,
            flow=self._before + report.flow.number,
            depth=report.depth + content.in_stream_layer,
            content=content,
        )

    def _flow_event(self, report: reports.FlowReport, time: datetime) -> CaptureEvent:
        flow = report.flow
        number = self._before + flow.number
        match report:
            case reports.Opened():
                self.flows = number
                side = report.side
                return FlowOpen(
                    time=time,
                    flow=number,
                    transport=flow.transport,
                    client=flow.client,
                    destination=flow.destination,
                    name=report.name,
                    side=side.side if side else None,
                    session_flow=side.flow if side else None,
                )
            case reports.Layer():
                return FlowLayer(
                    time=time,
                    flow=number,
                    depth=report.depth,
                    protocol=report.protocol,
                    speaker=report.speaker,
                    action=_action(report),
                    details=report.details,
                    connect_s=report.connect_s,
                )
            case reports.Fault():
                return FlowError(
                    time=time,
                    flow=number,
                    depth=report.innermost,
                    side="client" if report.direction is Direction.UP else "server",
                    stage="relay",
                    kind="protocol",
                    reason=report.reason,
                )
            case reports.Closed():
                return FlowClose(
                    time=time,
                    flow=number,
                    stack=report.stack,
                    reason=report.reason,
                    bytes_up=flow.bytes_up,
                    bytes_down=flow.bytes_down,
                    duration_s=flow.last_s - flow.opened_s,
                )


def _date(time_s: float) -> datetime:
    """A packet's time, limited to the dates that Python has."""
    if not _FIRST_S <= time_s <= _LAST_S:
        time_s = min(max(time_s, _FIRST_S), _LAST_S)
    return datetime.fromtimestamp(time_s, UTC)


def _action(layer: reports.Layer) -> Action:
    """The action that live traffic would have: TLS was decrypted or not."""
    if layer.protocol != "tls":
        return "relayed"
    return "intercepted" if layer.opened else "passthrough"
