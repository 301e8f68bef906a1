"""What the flows of a file have in common: counts, hosts, certificates, problems."""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from datetime import datetime
from typing import Any, Final

from mitml4.dataclass import dataclass
from mitml4.model.flow import Flow
from mitml4.protocols.wire_text import CUT
from mitml4.view.outline import has_failed, stack_text

__all__ = ["Certificate", "Host", "Summary"]

_MAX_COUNTED: Final = 10_000
"""Different hosts, certificates or reasons that are counted separately."""
_MAX_SERVERS: Final = 8
"""Servers that are named for a certificate."""


@dataclass(slots=True)
class Host:
    """What was exchanged with one server."""

    flows: int = 0
    requests: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    failed: int = 0


@dataclass(slots=True)
class Certificate:
    """A certificate that servers showed."""

    details: dict[str, Any]
    flows: int = 0
    servers: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Summary:
    """Is given flows one by one; its memory is bounded."""

    flows: int = 0
    requests: int = 0
    failed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    first: datetime | None = None
    last: datetime | None = None
    stacks: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    passed_through: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By server and reason."""
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By server and reason."""
    hosts: dict[str, Host] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)

    def add(self, flow: Flow) -> None:
        server = str(flow.server)
        self.flows += 1
        self.requests += len(flow.exchanges)
        self.failed += has_failed(flow)
        self.bytes_up += flow.bytes_up
        self.bytes_down += flow.bytes_down
        self.first = min(self.first or flow.opened_at, flow.opened_at)
        end = flow.closed_at or flow.opened_at
        self.last = max(self.last or end, end)
        self._count(self.stacks, stack_text(flow))
        for exchange in flow.exchanges:
            status = exchange.response.status if exchange.response else None
            self._count(self.statuses, str(status) if status else "no response")
        if flow.passthrough:
            self._count_pair(self.passed_through, server, flow.passthrough)
        for problem in flow.problems[:1]:
            self._count_pair(self.problems, server, f"{problem.side}: {problem.reason}")
        self._add_host(server, flow)
        for layer in flow.layers:
            if isinstance(certificate := layer.details.get("certificate"), dict):
                self._add_certificate(certificate, server)

    def _add_host(self, server: str, flow: Flow) -> None:
        key = server if server in self.hosts or len(self.hosts) < _MAX_COUNTED else CUT
        host = self.hosts.setdefault(key, Host())
        host.flows += 1
        host.requests += len(flow.exchanges)
        host.bytes_up += flow.bytes_up
        host.bytes_down += flow.bytes_down
        host.failed += has_failed(flow)

    def _add_certificate(self, details: dict[str, Any], server: str) -> None:
        key = str(details.get("sha256"))
        if key not in self.certificates and len(self.certificates) >= _MAX_COUNTED:
            return
        certificate = self.certificates.setdefault(key, Certificate(details))
        certificate.flows += 1
        if len(certificate.servers) < _MAX_SERVERS:
            certificate.servers[server] = None

    def _count(self, counter: Counter[str], what: str) -> None:
        counter[what if what in counter or len(counter) < _MAX_COUNTED else CUT] += 1

    def _count_pair(self, counter: Counter[tuple[str, str]], one: str, other: str) -> None:
        is_kept = (one, other) in counter or len(counter) < _MAX_COUNTED
        counter[(one, other) if is_kept else (CUT, CUT)] += 1
