"""Counts of a session, for the summary and for `session.stop`."""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.events import (
    FAILURES,
    ClientProbe,
    FlowClose,
    FlowError,
    FlowLayer,
    FlowOpen,
    ProbeOutcome,
    SessionStop,
)
from mitml4.protocols.wire_text import CUT
from mitml4.sinks.updates import ConnectionRefused, Published, QuicBlocked

__all__ = ["Totals"]

_MAX_COUNTED: Final = 1024
"""Different stacks, and different reasons, that are counted separately."""
_MAX_NUMBERS: Final = 10


@dataclass(slots=True)
class Totals:
    """The counts of a session."""

    wants: ClassVar[tuple[type, ...]] = (
        FlowOpen,
        FlowLayer,
        FlowError,
        FlowClose,
        ClientProbe,
        ConnectionRefused,
        QuicBlocked,
    )

    flows: int = 0
    closed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    stacks: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    """Layers of TLS that were intercepted, including those that failed."""
    handshakes_failed: int = 0
    """Failed handshakes that ended their flow."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed flows by reason."""
    failed_flows: list[int] = field(default_factory=list)
    """The numbers of the first failed flows."""
    blocked: int = 0
    """Flows."""
    passed_through: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Connections beyond the limits; they are not flows."""
    quic_blocked: int = 0
    """Packets."""
    undetected: int = 0
    """Flows whose innermost layer was not recognised."""
    probes: dict[tuple[str, str], dict[ProbeOutcome, list[str]]] = field(default_factory=dict)
    """The cases of `--probe-clients` by client and name, and by what the client did."""
    _troubled: set[int] = field(default_factory=set)
    _reasons: dict[int, str] = field(default_factory=dict)
    """The first failure of each open flow."""

    def publish(self, event: Published) -> None:
        match event:
            case FlowOpen():
                self.flows += 1
            case FlowLayer(action="intercepted"):
                self.opened += 1
            case FlowLayer(action="passthrough"):
                _count(self.passed_through, getattr(event.details, "passthrough", None) or "policy")
            case FlowError():
                self._reasons.setdefault(event.flow, f"{event.side}: {event.reason}")
                if event.stage == "handshake":
                    self._troubled.add(event.flow)
            case FlowClose():
                self.closed += 1
                self.handshakes_failed += event.flow in self._troubled and event.reason == "error"
                self._troubled.discard(event.flow)
                self._add_failure(event)
                self.blocked += event.reason in ("blocked", "denied")
                self.bytes_up += event.bytes_up
                self.bytes_down += event.bytes_down
                self.undetected += event.stack[-1:] == ("unknown",)
                _count(self.stacks, " › ".join(event.stack))
            case ConnectionRefused():
                self.refused += 1
            case QuicBlocked():
                self.quic_blocked = event.count
            case ClientProbe():
                self._add_probe(event)

    def add_captured(self, other: Totals) -> None:
        """Add what another process has counted of a capture."""
        self.flows += other.flows
        self.bytes_up += other.bytes_up
        self.bytes_down += other.bytes_down
        for stack, flows in other.stacks.items():
            _count(self.stacks, stack, flows)

    def _add_probe(self, event: ClientProbe) -> None:
        key = event.client.ip, event.name
        if key in self.probes or len(self.probes) < _MAX_COUNTED:
            self.probes.setdefault(key, {}).setdefault(event.outcome, []).append(event.case)

    def _add_failure(self, close: FlowClose) -> None:
        reason = self._reasons.pop(close.flow, None)
        if reason is None and close.reason not in FAILURES:
            return
        _count(self.failures, reason or close.reason)
        if len(self.failed_flows) < _MAX_NUMBERS:
            self.failed_flows.append(close.flow)

    def stop(self, reason: str, dropped_events: int) -> SessionStop:
        return SessionStop(
            flows=self.flows,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            stacks=dict(sorted(self.stacks.items(), key=lambda each: (-each[1], each[0]))),
            dropped_events=dropped_events,
            refused_connections=self.refused,
            reason=reason,
        )


def _count(counter: Counter[str], what: str, more: int = 1) -> None:
    """Count one or more; together with others once clients have invented too many different
    ones."""
    counter[what if what in counter or len(counter) < _MAX_COUNTED else CUT] += more
