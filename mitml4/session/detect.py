"""From a capture to the events that live traffic gives: one jq filter serves both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from mitml4 import __version__
from mitml4.capture import reports
from mitml4.capture.follow import Tally, follow
from mitml4.capture.pcap import Packet
from mitml4.capture.secrets import Secrets
from mitml4.events import Action, Event, FlowClose, FlowOpen, SessionStart
from mitml4.layers.report import Report, Side
from mitml4.protocols.conversation import Direction

__all__ = ["Detection"]

_FIRST_S: Final = datetime.min.replace(tzinfo=UTC).timestamp()
_LAST_S: Final = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()


@dataclass(slots=True)
class Detection:
    """Publishes the events of one capture after the other; flows are numbered through."""

    publish: Callable[[Event], None]
    tunnels: bool = False
    with_headers: bool = False
    secrets: Secrets = field(default_factory=Secrets)
    """They open TLS, and may grow as packets are read."""
    tally: Tally = field(default_factory=Tally)
    _flows: int = 0
    _open: dict[int, Report] = field(default_factory=dict)
    _time: datetime = datetime.min

    def start(self) -> None:
        self.publish(
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

    def read(self, packets: Iterable[Packet]) -> None:
        """Take in a capture. Raises CaptureError where it breaks, after all that could be read."""
        self._open.clear()
        for report in follow(packets, tunnels=self.tunnels, secrets=self.secrets, tally=self.tally):
            self._time = _date(report.time_s)
            self._tell(report)

    def _tell(self, report: reports.Report) -> None:
        number = report.flow.number
        match report:
            case reports.Opened():
                self._flows += 1
                self._open[number] = Report(
                    self._flows, self.publish, self.with_headers, clock=self._clock
                )
                self.publish(
                    FlowOpen(
                        time=self._time,
                        flow=self._flows,
                        client=report.flow.client,
                        destination=report.flow.destination,
                    )
                )
            case reports.Layer():
                told = self._open[number]
                told.push(report.protocol)
                told.layer(report.depth, report.speaker, _action(report), report.facts)
            case reports.Noticed():
                self._open[number].notice(report.depth, report.notice)
            case reports.Fault():
                side: Side = "ingress" if report.direction is Direction.UP else "egress"
                self._open[number].error(side, "relay", "protocol", report.reason)
            case reports.Closed():
                flow = report.flow
                self.publish(
                    FlowClose(
                        time=self._time,
                        flow=self._open.pop(number).flow,
                        stack=report.stack,
                        reason=report.reason,
                        bytes_up=flow.bytes_up,
                        bytes_down=flow.bytes_down,
                        duration_s=flow.last_s - flow.opened_s,
                    )
                )

    def _clock(self) -> datetime:
        return self._time


def _date(time_s: float) -> datetime:
    """A packet's time; the nearest date, where a broken clock is beyond them all."""
    return datetime.fromtimestamp(min(max(time_s, _FIRST_S), _LAST_S), UTC)


def _action(layer: reports.Layer) -> Action:
    """What the same words say of live traffic: TLS was opened, or it was not."""
    if layer.protocol != "tls":
        return "relayed"
    return "intercepted" if layer.opened else "passthrough"
