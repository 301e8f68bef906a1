"""`python -m bench.workers`: what connections and requests cost in one process and in two.

One process has one core, which it shares with the lab's client and server; two have two, and share
them in the same way. So each core has the same kinds of work, and neither a process nor its caches
are better off alone. All always have more to do: one that waits for each request wakes for each.
What follows for cores that carry nothing else is as many a second as the CPU time allows; what the
client counts is how many there were with client and server beside them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from bench.kept_alive import Load, h2load, wrk
from bench.lab import CONGESTION_CONTROL, Lab
from bench.peers import Mitml4, Mitml4One, Proxy, Standing
from bench.processes import parse_cpu_ticks, tree

_CORES: Final = 2
_CONNECTIONS: Final = 96
_STREAMS: Final = 32
_FRESH: Final = 1500
_FRESH_AT_ONCE: Final = 64
_SECONDS: Final = 4
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Several(Mitml4):
    name: ClassVar[str] = "mitml4-workers"
    options: ClassVar[tuple[str, ...]] = ("--workers", str(_CORES))


def _connections(lab: Lab, standing: Standing) -> int:
    arguments = lab.fresh(standing.trust, "load", count=_FRESH, concurrency=_FRESH_AT_ONCE)
    lab.script("fresh.py", *arguments)
    return _FRESH


def _requests(
    program: Callable[[Lab, int, int, int], Load], connections: int, streams: int
) -> Callable[[Lab, Standing], int]:
    def load(lab: Lab, _standing: Standing) -> int:
        return program(lab, connections, streams, _SECONDS).requests

    return load


_LOADS: Final[dict[str, Callable[[Lab, Standing], int]]] = {
    "connection": _connections,
    "HTTP/1 request": _requests(wrk, _CONNECTIONS, 1),
    "HTTP/2 request": _requests(h2load, _CONNECTIONS // 4, _STREAMS),
}


def _carrying(session: int) -> list[int]:
    """The processes of a session that carry flows: not the one that starts workers."""
    return [each for each in tree(session) if each == session or _is_worker(each)]


def _is_worker(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"mitml4: worker")


def _cpu_s(pid: int) -> dict[int, float]:
    return {
        each: parse_cpu_ticks(Path(f"/proc/{each}/stat").read_text()) / _TICKS for each in tree(pid)
    }


def _private_mb(pid: int) -> Iterator[float]:
    for each in tree(pid):
        lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        yield sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one of something took."""

    cpu_us: list[float]
    """Microseconds of CPU of each process."""
    rate: float
    """How many there were a second, with client and server on the same cores."""

    @classmethod
    def of(cls, pid: int, load: Callable[[], int]) -> _Cost:
        before, began = _cpu_s(pid), time.monotonic()
        count = load()
        took_s, after = time.monotonic() - began, _cpu_s(pid)
        cpu_us = [(after[each] - before.get(each, 0.0)) * 1e6 / count for each in after]
        return cls(cpu_us, count / took_s)

    def __str__(self) -> str:
        return f"{self.rate:.0f} a second, µs of CPU: {[round(each) for each in self.cpu_us]}"


def _pin(session: int, cores: Sequence[int]) -> None:
    """One process a core."""
    for core, process in zip(cores, _carrying(session), strict=True):
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(thread.name), (core,))


def _measured(peer: Proxy, cores: Sequence[int]) -> tuple[dict[str, _Cost], list[float]]:
    """What each kind of load costs, and the private memory of the processes. All that is started
    stays on these cores."""
    os.sched_setaffinity(0, cores)
    with Lab.open(1 << 20, CONGESTION_CONTROL) as lab, peer.standing(lab) as standing:
        assert standing.pid
        _connections(lab, standing)
        _pin(standing.pid, cores)
        costs = {}
        for what, load in _LOADS.items():
            costs[what] = _Cost.of(standing.pid, partial(load, lab, standing))
            print(f"{peer.name}, {what}: {costs[what]}", file=sys.stderr)
        return costs, list(_private_mb(standing.pid))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    cores = sorted(os.sched_getaffinity(0))[:_CORES]
    if len(cores) < _CORES:
        raise SystemExit(f"bench.workers: {_CORES} cores are needed")
    costs: dict[str, list[tuple[_Cost, _Cost]]] = {what: [] for what in _LOADS}
    memory: dict[str, list[float]] = {}
    for _ in range(rounds):
        one, memory[Mitml4One.name] = _measured(Mitml4One(), cores[:1])
        several, memory[_Several.name] = _measured(_Several(), cores)
        for what in _LOADS:
            costs[what].append((one[what], several[what]))
    for what, pairs in costs.items():
        alone, together = ([sum(each.cpu_us) for each in side] for side in zip(*pairs, strict=True))
        by_cpu = [_CORES * a / b for a, b in zip(alone, together, strict=True)]
        by_rate = [each.rate / first.rate for first, each in pairs]
        print(
            f"{what}: {statistics.median(alone):.0f} µs by one process, "
            f"{statistics.median(together):.0f} µs with {_CORES} processes, {_range(by_cpu)} times "
            f"as many a second; with client and server {_range(by_rate)} times"
        )
    for name, found in memory.items():
        print(f"{name}: private memory, MB: {[round(each) for each in found]}")


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
