"""The summary at the end of a session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from mitml4.events import ProbeOutcome
from mitml4.printable import printable
from mitml4.protocols.wire_text import CUT
from mitml4.session.reporting.totals import Totals

__all__ = ["probe_lines", "summary"]

_MAX_STACKS: Final = 8
_MAX_REASONS: Final = 4
_LONGEST: Final = 60
"""Characters of a name or a reason."""

_OUTCOMES: Final[tuple[tuple[ProbeOutcome, str], ...]] = (
    ("sent_data", "SENT DATA"),
    ("accepted", "ACCEPTED"),
    ("refused", "refused"),
    ("not_offered", "not offered"),
)


def summary(
    totals: Totals,
    took_s: float,
    files: Sequence[str],
    dropped_events: int,
    *,
    cut_off: Collection[str] = (),
    has_rules: bool = True,
) -> str:
    """A few lines of text: flows, stacks, TLS, failures, files, rules. `cut_off`: the outputs that
    could not be written to their end."""
    lines = [
        f"{totals.flows} {_plural('flow', totals.flows)} in {took_s:.0f} s, "
        f"{_size(totals.bytes_up)} up, {_size(totals.bytes_down)} down"
    ]
    if totals.stacks:
        lines.append(f"  stacks    {_counts(totals.stacks, _MAX_STACKS)}")
    if totals.opened or totals.passed_through:
        passed = sum(totals.passed_through.values())
        why = f" ({_counts(totals.passed_through)})" if passed else ""
        failed = f", {totals.handshakes_failed} failed" if totals.handshakes_failed else ""
        opened = totals.opened - totals.handshakes_failed
        lines.append(f"  TLS       {opened} opened{failed}, {passed} passed through{why}")
    if count := totals.failures.total():
        lines.append(f"  failed    {count} {_plural('flow', count)} ({_counts(totals.failures)})")
        more = ", …" if count > len(totals.failed_flows) else ""
        lines.append(f"            # {', '.join(map(str, totals.failed_flows))}{more}")
    if totals.undetected:
        lines.append(f"  unknown   {totals.undetected} {_plural('flow', totals.undetected)}")
    if totals.refused:
        refused = f"{totals.refused} {_plural('connection', totals.refused)}"
        lines.append(f"  refused   {refused} that there was no room for")
    blocked = ((totals.blocked, "flow"), (totals.quic_blocked, "QUIC packet"))
    if counts := [f"{count} {_plural(what, count)}" for count, what in blocked if count]:
        lines.append(f"  blocked   {', '.join(counts)}")
    if dropped_events:
        dropped = f"{dropped_events} {_plural('event', dropped_events)}"
        why = "were not written" if cut_off else "came faster than they were read"
        lines.append(f"  dropped   {dropped} that {why}")
    lines += probe_lines(totals)
    lines += [f"  {'cut off' if name in cut_off else 'written'}   {name}" for name in files]
    if has_rules:
        lines.append("  rules removed")
    return "\n".join(lines)


def probe_lines(totals: Totals) -> Iterator[str]:
    """A table of what clients did with the defects of `--probe-clients`; the findings first."""
    for (client, name), outcomes in totals.probes.items():
        yield f"  probed    {client} at {printable(name)}"
        for outcome, shown in _OUTCOMES:
            if cases := outcomes.get(outcome):
                yield f"            {shown:<11}  {', '.join(dict.fromkeys(cases))}"


def _counts(counter: Counter[str], most: int = _MAX_REASONS) -> str:
    """The most frequent ones, each cut to a bounded length, and how many others there are."""
    shown = counter.most_common(most)
    parts = [f"{count} × {_cut(printable(name)) or 'no byte'}" for name, count in shown]
    if others := counter.total() - sum(count for _, count in shown):
        parts.append(f"{others} × others")
    return ", ".join(parts)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}{CUT}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _size(count: int) -> str:
    """A number of bytes with a unit."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
