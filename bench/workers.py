"""`python -m bench.workers`: what connections and requests cost in one process and in two.

Each process that carries flows has a core of its own, which it shares with the lab's client and
server. All always have more to do: one that waits for each request wakes for each. So what follows
for two cores that carry nothing else is as many a second as the CPU time of both allows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from bench.kept_alive import Load, h2load, wrk
from bench.lab import CONGESTION_CONTROL, Lab
from bench.peers import Mitml4, Mitml4One, Standing
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


def _cost(pid: int, load: Callable[[], int]) -> list[float]:
    """The microseconds of CPU of each process, for one of what the load counts."""
    before = _cpu_s(pid)
    count = load()
    after = _cpu_s(pid)
    return [(after[each] - before.get(each, 0.0)) * 1e6 / count for each in after]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    cores = sorted(os.sched_getaffinity(0))
    costs: dict[tuple[str, str], list[list[float]]] = {}
    memory: dict[str, list[float]] = {}
    with Lab.open(1 << 20, CONGESTION_CONTROL) as lab:
        for _ in range(rounds):
            for peer in (Mitml4One(), _Several()):
                with peer.standing(lab) as standing:
                    assert standing.pid
                    _connections(lab, standing)
                    for core, process in zip(cores, _carrying(standing.pid), strict=False):
                        for thread in Path(f"/proc/{process}/task").iterdir():
                            os.sched_setaffinity(int(thread.name), (core,))
                    for what, load in _LOADS.items():
                        cost = _cost(standing.pid, partial(load, lab, standing))
                        costs.setdefault((peer.name, what), []).append(cost)
                        print(peer.name, what, [round(each) for each in cost], file=sys.stderr)
                    memory[peer.name] = list(_private_mb(standing.pid))
    for what in _LOADS:
        one = [sum(cost) for cost in costs[Mitml4One.name, what]]
        several = costs[_Several.name, what]
        times = [alone / (sum(cost) / _CORES) for alone, cost in zip(one, several, strict=True)]
        print(
            f"{what}: {statistics.median(one):.0f} µs by one process, "
            f"{statistics.median(map(sum, several)):.0f} µs with {_CORES} processes, "
            f"{statistics.median(times):.2f} times as many a second ({min(times):.2f}-"
            f"{max(times):.2f})"
        )
    for name, found in memory.items():
        print(f"{name}: private memory, MB: {[round(each) for each in found]}")


if __name__ == "__main__":
    main()
