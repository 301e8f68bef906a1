"""Score detection against captures with known stacks: precision and recall by protocol.

    python tools/score_detect.py DIRECTORY [--hints]

DIRECTORY contains captures and `truth.jsonl`, one line per TCP flow with payload: `pcap`, `client`,
`server`, `t0` (epoch seconds of the first packet), `syn` (whether the start was captured), `stack`
and `confidence`. Flows of high and medium confidence count; --hints also lists disagreements on the
others. A flow without its start may be `unknown` without counting as missed, and a name that mitml4
does not support counts as `unknown`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mitml4.capture.files.reader import read_packets
from mitml4.capture.follow import follow
from mitml4.capture.reports import Closed
from mitml4.capture.tls.secrets import Secrets
from mitml4.errors import CaptureError
from mitml4.protocols.registry import by_name

UNKNOWN: Final = "unknown"

Ends = frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Known:
    """A line of the truth."""

    capture: str
    title: str
    ends: Ends
    t0: float
    syn: bool
    stack: tuple[str, ...]
    confidence: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> Known:
        pair = [(str(ip), int(port)) for ip, port in (row["client"], row["server"])]
        return cls(
            capture=row["pcap"],
            title=" → ".join(f"{ip}:{port}" for ip, port in pair),
            ends=frozenset(pair),
            t0=float(row["t0"]),
            syn=row["syn"],
            stack=tuple(name if by_name(name) else UNKNOWN for name in row["stack"]),
            confidence=row["confidence"],
        )

    @property
    def counts(self) -> bool:
        return self.confidence in ("high", "medium")


@dataclass(frozen=True, slots=True)
class Found:
    """A flow as detected."""

    ends: Ends
    t0: float
    stack: tuple[str, ...]


class Score:
    """Right, missed and wrong, by protocol name."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.flows = 0
        self.agreed = 0

    def add(self, known: tuple[str, ...], found: tuple[str, ...]) -> None:
        self.flows += 1
        self.agreed += known == found
        want, have = Counter(known), Counter(found)
        del want[UNKNOWN], have[UNKNOWN]
        self.right.update(want & have)
        self.missed.update(want - have)
        self.wrong.update(have - want)

    def table(self) -> Iterator[str]:
        yield f"{'protocol':<20}{'flows':>7}{'precision':>11}{'recall':>9}"
        for name in sorted(self.right | self.missed | self.wrong):
            yield self._row(name, self.right[name], self.missed[name], self.wrong[name])
        yield self._row("all", self.right.total(), self.missed.total(), self.wrong.total())
        yield f"{self.agreed} of {self.flows} flows have exactly the stack that is known"

    @staticmethod
    def _row(name: str, right: int, missed: int, wrong: int) -> str:
        precision = f"{right / (right + wrong):.2%}" if right + wrong else "-"
        recall = f"{right / (right + missed):.2%}" if right + missed else "-"
        return f"{name:<20}{right + missed:>7}{precision:>11}{recall:>9}"


def detect(capture: Path) -> list[Found]:
    """Every flow of a capture, in the order of closing. Tunnels are decoded, and TLS is decrypted
    with the capture's secrets."""
    found = []
    secrets = Secrets()
    with capture.open("rb") as stream:
        packets = read_packets(stream, capture.name, on_secrets=secrets.add)
        try:
            for report in follow(packets, tunnels=True, secrets=secrets):
                if isinstance(report, Closed):
                    flow = report.flow
                    ends = frozenset((a.ip, a.port) for a in (flow.client, flow.destination))
                    found.append(Found(ends, flow.opened_s, report.stack))
        except CaptureError as error:
            print(f"note: {error.message}", file=sys.stderr)
    return found


def nearest(known: Known, found: list[Found]) -> Found | None:
    """The flow with payload between the same addresses that started closest to the same time."""
    same = [flow for flow in found if flow.ends == known.ends and flow.stack]
    return min(same, key=lambda flow: abs(flow.t0 - known.t0), default=None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path, help="captures and their truth.jsonl")
    parser.add_argument("--hints", action="store_true", help="list low confidence as well")
    options = parser.parse_args()

    captures: dict[str, list[Known]] = defaultdict(list)
    for line in (options.directory / "truth.jsonl").read_text().splitlines():
        known = Known.of(json.loads(line))
        captures[known.capture].append(known)

    score = Score()
    for name, rows in sorted(captures.items()):
        found = detect(options.directory / name)
        for known in rows:
            flow = nearest(known, found)
            stack = flow.stack if flow else ()
            if stack == known.stack:
                if known.counts:
                    score.add(known.stack, stack)
                continue
            excused = not known.syn and stack in ((UNKNOWN,), ())
            if known.counts and not excused:
                score.add(known.stack, stack)
            if known.counts or options.hints:
                print(_disagreement(known, stack, excused))
    print("\n".join(score.table()))
    return 0


def _disagreement(known: Known, stack: tuple[str, ...], excused: bool) -> str:
    want, have = (" › ".join(names) or "nothing" for names in (known.stack, stack))
    note = " (excused: its start was not seen)" if excused else ""
    return f"{known.confidence:<6} {known.capture} {known.title}: known {want}, found {have}{note}"


if __name__ == "__main__":
    sys.exit(main())
