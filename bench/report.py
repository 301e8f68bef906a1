"""From samples to tables: medians over the rounds, and comparisons with `direct` by round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench.captures import CAPTURE_FIGURES, CaptureFigure
from bench.figures import FIGURES, QUANTITIES, Figure, Quantity, Values
from bench.startup import STARTUP, StartupFigure

__all__ = ["ALL_FIGURES", "Report", "Sample", "Spread", "compare", "parse_size", "spread"]

ALL_FIGURES: Final[tuple[Figure | StartupFigure | CaptureFigure, ...]] = (
    *FIGURES,
    STARTUP,
    *CAPTURE_FIGURES,
)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one peer for one figure in one round."""

    figure: str
    peer: str
    round: int
    values: Values


@dataclass(frozen=True, slots=True)
class Spread:
    """A summary of several rounds."""

    median: float
    low: float
    high: float

    def show(self, decimals: int) -> str:
        low, high = f"{self.low:.{decimals}f}", f"{self.high:.{decimals}f}"
        median = f"{self.median:.{decimals}f}"
        return median if low == high else f"{median} ({low}–{high})"


@dataclass(slots=True)
class Report:
    """A run: the machine, the settings, all samples, and missing figures with their reasons."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    legs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Peer → the TLS parameters of its client side and its server side."""
    samples: list[Sample] = field(default_factory=list)
    not_measured: list[tuple[str, str, str]] = field(default_factory=list)
    """(figure, peer, reason)"""

    def to_json(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "settings": self.settings,
            "versions": self.versions,
            "legs": self.legs,
            "samples": [
                {"figure": s.figure, "peer": s.peer, "round": s.round, "values": s.values}
                for s in self.samples
            ],
            "not_measured": [
                {"figure": figure, "peer": peer, "reason": reason}
                for figure, peer, reason in self.not_measured
            ],
        }

    def to_markdown(self) -> str:
        parts = [self._details()]
        parts += [text for figure in ALL_FIGURES if (text := self._table(figure))]
        if self.not_measured:
            lines = [f"- {figure}, {peer}: {why}" for figure, peer, why in self.not_measured]
            parts.append("\n".join(["### Not measured", "", *lines]))
        return "\n\n".join(parts) + "\n"

    def _details(self) -> str:
        details = {**self.machine, **self.settings}
        lines = [f"- {key}: {value}" for key, value in details.items()]
        lines += ["", "| peer | version | client leg | server leg |", "|---|---|---|---|"]
        for peer, version in self.versions.items():
            legs = self.legs.get(peer, {})
            shown = (peer, version, legs.get("client_leg", "–"), legs.get("server_leg", "–"))
            lines.append(f"| {' | '.join(shown)} |")
        return "\n".join(lines)

    def _table(self, figure: Figure | StartupFigure | CaptureFigure) -> str | None:
        samples = [sample for sample in self.samples if sample.figure == figure.name]
        if not samples:
            return None
        peers = list(dict.fromkeys(sample.peer for sample in samples))
        names = [name for name in QUANTITIES if any(name in s.values for s in samples)]
        columns = [
            column
            for name in names
            for column in _columns(name, QUANTITIES[name], samples, peers, figure.base)
        ]
        head = [figure.rows, *(title for title, _ in columns)]
        rows = [[peer, *(cells[peer] for _, cells in columns)] for peer in peers]
        lines = [head, ["---", *("---:" for _ in columns)], *rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {figure.title}\n\n{table}"


def _columns(
    name: str, quantity: Quantity, samples: Sequence[Sample], peers: Sequence[str], base: str
) -> list[tuple[str, dict[str, str]]]:
    """The quantity's column, and the column of its comparison with the base, if there is one."""
    own = {
        peer: _cell(
            [s.values[name] for s in samples if s.peer == peer and name in s.values],
            quantity.decimals,
        )
        for peer in peers
    }
    columns = [(quantity.label, own)]
    if quantity.versus and base in peers and len(peers) > 1:
        title = f"× {base}" if quantity.versus == "ratio" else f"added to {quantity.label}"
        others = {
            peer: _cell(compare(samples, peer, name, quantity.versus, base), 2)
            if peer != base
            else "–"
            for peer in peers
        }
        columns.append((title, others))
    return columns


def _cell(values: Sequence[float], decimals: int) -> str:
    return spread(values).show(decimals) if values else "–"


def spread(values: Sequence[float]) -> Spread:
    """Median, minimum and maximum of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def compare(
    samples: Sequence[Sample], peer: str, name: str, versus: str, base: str = "direct"
) -> list[float]:
    """A peer's value relative to the base's in the same round, for each round that has both.

    The machine drifts from round to round, so values of the same round are compared, not medians.
    """
    bases = {s.round: s.values[name] for s in samples if s.peer == base and name in s.values}
    pairs = [
        (s.values[name], bases[s.round])
        for s in samples
        if s.peer == peer and name in s.values and s.round in bases
    ]
    return [own / other if versus == "ratio" else own - other for own, other in pairs]


def parse_size(text: str) -> int:
    """Bytes of `1G`, `200M`, `64K` or a plain number; powers of ten. Raises ValueError."""
    digits = text.rstrip("KMGkmg")
    unit = text[len(digits) :].upper()
    if not digits.isdecimal() or unit not in _UNITS or int(digits) == 0:
        raise ValueError(f"not a size: {text!r} (say 1G, 200M or a number of bytes)")
    return int(digits) * _UNITS[unit]
