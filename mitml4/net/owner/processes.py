"""Finds the process that has a socket, in /proc (proc(5)).

There is no index from sockets to processes, so descriptors of processes are looked at until one is
the socket. Those come first that are likely: the descriptors where sockets were found before, then
the processes that had them, then the processes that were started last. All other processes come at
the end, and take no more than a share of the time.
"""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from cachetools import LRUCache

from mitml4.dataclass import dataclass
from mitml4.net.owner.diag import Owned
from mitml4.process import Process, RunningProcess

__all__ = ["ProcessTable"]

_REMEMBERED: Final = 32
"""Processes."""
_LIKELY: Final = 4
"""Descriptors of a process, where its last sockets were."""
_SEARCHED_AGAIN: Final = 4
"""Processes that had sockets before, all of whose descriptors are looked at."""
_STARTED_LAST: Final = 128
"""On a busy machine, so many may have been started since the one in question."""
_MAX_SCAN_S: Final = 0.02
"""CPU time of a look at all processes."""
_SCAN_SHARE: Final = 0.1
"""The share of the time for such looks."""
_INODES: Final = 4096
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_MAX_ARGUMENTS: Final = 4096
"""Bytes of a command line that are kept."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A process that was described."""

    stat: tuple[str, str]
    """Its name and start time: another process has others."""
    running: RunningProcess


class _Found(NamedTuple):
    """A process, or one of its threads, and its descriptor of the socket, where that is known."""

    pid: int
    descriptor: str | None = None


class ProcessTable:
    """The processes of this host that may be looked at."""

    def __init__(self, *, network: int | None = None, root: str = "/proc") -> None:
        """`network`: the inode of the network namespace in which all processes in question are;
        without it, those of the socket's user are looked at."""
        self._network = network
        self._root = root
        self._recent: OrderedDict[int, deque[str]] = OrderedDict()
        """By number, the one that was found last at the end; its likely descriptors."""
        self._by_inode: LRUCache[int, int] = LRUCache(_INODES)
        """Processes of sockets that were seen when another was looked for."""
        self._seen: LRUCache[int, _Seen] = LRUCache(_REMEMBERED)
        self._may_scan_at = 0.0

    def find(self, owned: Owned) -> RunningProcess | None:
        """The process that has a socket; None: it has gone, may not be looked at, or was not found
        in time."""
        found = self._find(owned)
        running = None if found is None else self._describe(found.pid)
        if found is None or running is None:
            return None
        pid = running.process.pid
        likely = self._recent.setdefault(pid, deque(maxlen=_LIKELY))
        if found.descriptor and found.descriptor not in likely:
            likely.appendleft(found.descriptor)
        self._recent.move_to_end(pid)
        while len(self._recent) > _REMEMBERED:
            self._recent.popitem(last=False)
        return running

    def _find(self, owned: Owned) -> _Found | None:
        if pid := self._by_inode.pop(owned.inode, None):
            return _Found(pid)
        recent = [*reversed(self._recent)]
        for pid in [*recent]:
            for descriptor in self._recent[pid]:
                if self._inode(f"{self._root}/{pid}/fd/{descriptor}") == owned.inode:
                    return _Found(pid, descriptor)
            if not os.path.exists(f"{self._root}/{pid}"):
                del self._recent[pid]
                recent.remove(pid)
        return self._first((*recent[:_SEARCHED_AGAIN], *self._started_last()), owned) or (
            self._scan(owned)
        )

    def _first(self, pids: Iterable[int], owned: Owned, until: float = math.inf) -> _Found | None:
        """`until`: the CPU time after which no more are looked at."""
        for pid in pids:
            if self._is_candidate(pid, owned.uid) and (found := self._look_at(pid, owned.inode)):
                return found
            if time.thread_time() > until:
                break
        return None

    def _scan(self, owned: Owned) -> _Found | None:
        """Look at all processes, the youngest first."""
        if time.monotonic() < self._may_scan_at:
            return None
        began = time.thread_time()
        found = self._first(self._all(), owned, began + _MAX_SCAN_S)
        took = time.thread_time() - began
        self._may_scan_at = time.monotonic() + took / _SCAN_SHARE
        return found

    def _started_last(self) -> Iterator[int]:
        last = self._last()
        return iter(range(last, max(0, last - _STARTED_LAST), -1))

    def _last(self) -> int:
        """The number of the process or thread that was started last."""
        try:
            return int(_read(f"{self._root}/loadavg").split()[4])
        except (OSError, ValueError, IndexError):
            return 0

    def _all(self) -> list[int]:
        last = self._last()
        pids = [int(name) for name in os.listdir(self._root) if name.isdecimal()]
        return sorted(pids, key=lambda pid: (pid > last, -pid))

    def _is_candidate(self, pid: int, uid: int) -> bool:
        directory = f"{self._root}/{pid}"
        try:
            if self._network is not None:
                return os.stat(f"{directory}/ns/net").st_ino == self._network
            # What may not be read by its user belongs to root here (PR_SET_DUMPABLE, prctl(2)).
            return os.stat(directory).st_uid in (uid, 0)
        except OSError:
            return False

    def _look_at(self, pid: int, inode: int) -> _Found | None:
        """Where the socket is among the descriptors of a process or thread."""
        directory = f"{self._root}/{pid}/fd"
        try:
            descriptors = os.listdir(directory)
        except OSError:
            return None
        found = None
        for descriptor in reversed(descriptors):
            of = self._inode(f"{directory}/{descriptor}")
            if of == inode:
                found = _Found(pid, descriptor)
            elif of:
                self._by_inode[of] = pid
        return found

    def _inode(self, descriptor: str) -> int:
        """The inode of a socket; 0: it is none."""
        with suppress(OSError):
            link = os.readlink(descriptor)
            if link.startswith("socket:["):
                return int(link[8:-1])
        return 0

    def _describe(self, pid: int) -> RunningProcess | None:
        """The process of this number, or of the thread: /proc has threads by their numbers, too,
        and does not list them. A thread may be in another network namespace than its process."""
        directory = f"{self._root}/{pid}"
        try:
            stat = _read(f"{directory}/stat")
            before, _, after = stat.rpartition(")")
            name = before.partition("(")[2]
            known_by = name, after.split()[19]  # starttime
            seen = self._seen.get(pid)
            if seen and seen.stat == known_by:
                return seen.running
            status = _read(f"{directory}/status")
            if (leader := _number(status, "Tgid:", 1)) != pid:
                return self._describe(leader)
            process = Process(
                pid=pid,
                uid=_number(status, "Uid:", 2),
                name=name,
                command=_arguments(_read(f"{directory}/cmdline")),
                cgroup=_cgroup(_read(f"{directory}/cgroup").splitlines()),
            )
            running = RunningProcess(process, int(known_by[1]) / _TICKS)
        except (OSError, IndexError, ValueError, StopIteration):
            return None
        self._seen[pid] = _Seen(known_by, running)
        return running


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MAX_ARGUMENTS).decode(errors="replace")
    finally:
        os.close(descriptor)


def _arguments(text: str) -> tuple[str, ...]:
    return tuple(text.rstrip("\0").split("\0")) if text else ()


def _number(status: str, field: str, at: int) -> int:
    """From /proc/PID/status. Of the four in `Uid:`, the second is the effective one."""
    return int(next(row for row in status.splitlines() if row.startswith(field)).split()[at])


def _cgroup(rows: Iterable[str]) -> str | None:
    """From /proc/PID/cgroup, cgroups(7)."""
    paths = {(number, of): path for number, of, path in (row.split(":", 2) for row in rows)}
    unified = paths.get(("0", ""))
    if unified not in (None, "/"):
        return unified
    named = next((path for (_, of), path in paths.items() if of == "name=systemd"), None)
    return named or unified
