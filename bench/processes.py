"""The resources of a process and all its descendants, and of the machine: CPU seconds and resident
memory, from /proc."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = [
    "MemoryWatch",
    "busy_seconds",
    "cpu_seconds",
    "parse_busy_ticks",
    "parse_cpu_ticks",
    "resident_bytes",
    "stop",
    "tree",
]

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_WATCH_INTERVAL_S: Final = 0.05


def parse_cpu_ticks(stat: str) -> int:
    """utime + stime + cutime + cstime of a /proc/PID/stat line (proc(5)).

    The command name may contain spaces and parentheses, so fields are counted from the last `)`:
    field 3 follows it, and the four times are fields 14 to 17.
    """
    fields = stat.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def tree(pid: int) -> list[int]:
    """The process and its living descendants."""
    found = [pid]
    for parent in found:
        found += _children(parent)
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(each) for task in tasks for each in (task / "children").read_text().split()]
    except OSError:  # it ended between two reads
        return []


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree; the time of ended children is included in their
    parents'."""
    ticks = 0
    for member in tree(pid):
        try:
            ticks += parse_cpu_ticks(Path(f"/proc/{member}/stat").read_text())
        except OSError:
            continue
    return ticks / _TICKS_PER_SECOND


def parse_busy_ticks(stat: str) -> int:
    """How long all cores together have been busy, of /proc/stat (proc(5)): its first line but for
    `idle` and `iowait`, and for `guest` and `guest_nice`, which `user` and `nice` contain."""
    counted = [int(field) for field in stat.splitlines()[0].split()[1:9]]
    return sum(counted[:3]) + sum(counted[5:])


def busy_seconds() -> float:
    """The CPU seconds of all programs and of the kernel."""
    return parse_busy_ticks(Path("/proc/stat").read_text()) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Resident set of the tree; shared pages count once for each process."""
    pages = 0
    for member in tree(pid):
        try:
            pages += int(Path(f"/proc/{member}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * _PAGE_BYTES


@dataclass(slots=True)
class MemoryWatch:
    """Resident memory at the start of a load, and its maximum until the end."""

    start: int
    peak: int

    @classmethod
    @contextmanager
    def over(cls, pid: int) -> Iterator[MemoryWatch]:
        """Sample every 50 ms while the block runs."""
        first = resident_bytes(pid)
        watch = cls(start=first, peak=first)
        done = threading.Event()

        def look() -> None:
            while not done.wait(_WATCH_INTERVAL_S):
                watch.peak = max(watch.peak, resident_bytes(pid))

        thread = threading.Thread(target=look, name="memory watch")
        thread.start()
        try:
            yield watch
        finally:
            done.set()
            thread.join()
            watch.peak = max(watch.peak, resident_bytes(pid))


def stop(process: subprocess.Popen[Any], grace_s: float = 15) -> None:
    """Ask a process to end, wait, and kill it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
