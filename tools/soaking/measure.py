"""What a session holds at a moment: descriptors by kind, threads, tasks, memory."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .launch import Shared

__all__ = ["Held", "ask", "measure", "tree"]

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_KIND: Final = re.compile(r"^(?:anon_inode:)?\[?(?P<kind>[a-z_]+)\]?")
_ANSWER_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Held:
    """Of a session and the processes that it has started."""

    processes: int
    threads: int
    tasks: int
    """Of the process that runs the session."""
    descriptors: Counter[str]
    """By kind: socket, pipe, eventpoll, …, and file."""
    resident_bytes: int

    def descriptors_beyond(self, before: Held, idle_pipes: int) -> Counter[str]:
        """Those that it did not hold before, by kind. Pipes are left out where they have at most
        this number of ends: they are kept for the next flow."""
        more = self.descriptors - before.descriptors
        if more["pipe"] <= idle_pipes:
            del more["pipe"]
        return more

    def __str__(self) -> str:
        return (
            f"{self.descriptors.total()} descriptors, {self.tasks} tasks, {self.threads} threads, "
            f"{self.processes} processes, {self.resident_bytes / 2**20:.0f} MiB"
        )


def tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for parent in found:
        with suppress(OSError):  # it has ended
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def measure(pids: list[int], shared: Shared) -> Held:
    """`pids`: all processes, first the one that runs the session, which has the other end of what
    is shared. Raises TimeoutError if that does not answer."""
    kinds: Counter[str] = Counter()
    threads = resident = count = 0
    for pid in pids:
        with suppress(OSError):
            kinds.update(_descriptors(pid))
            threads += len(os.listdir(f"/proc/{pid}/task"))
            pages = Path(f"/proc/{pid}/statm").read_text().split()
            resident += (int(pages[1]) - int(pages[2])) * _PAGE_BYTES
            count += 1
    return Held(count, threads, ask(pids[0], shared, 0), kinds, resident)


def _descriptors(pid: int) -> list[str]:
    kinds = []
    for each in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{each}")
            match = None if target.startswith("/") else _KIND.match(target)
            kinds.append(match["kind"] if match else "file")
    return kinds


def ask(pid: int, shared: Shared, limit: int) -> int:
    """Make a session take a limit of descriptors (0: the highest); returns the number of its
    tasks. Raises TimeoutError if it does not answer."""
    _, before, _ = shared.counts()
    shared.set_counts(limit, before, 0)
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    while shared.counts()[1] == before:
        if time.monotonic() > deadline:
            raise TimeoutError("the session does not answer its signal")
        time.sleep(0.02)
    return shared.counts()[2]
