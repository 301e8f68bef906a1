"""Covers (covers.py) whose helper was killed.

A cover is a mount whose source names the helper: its process id and its start time.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.net import capabilities, isolation, processes
from mitml4.net.capabilities import Capability
from mitml4.net.isolation import CLONE_NEWNS, CLONE_NEWUSER
from mitml4.regex import regex

__all__ = ["WORKSHOP", "Leftover", "is_covered_by_a_session", "leftovers", "source_name"]

WORKSHOP: Final = Path("/tmp")
"""Where a helper makes its covers, in its separate mount namespace."""
_NS_GET_USERNS: Final = 0xB701  # linux/nsfs.h

_SOURCE: Final = regex(r"mitml4-cover-([0-9]+)-([0-9]+)")
_ESCAPED: Final = regex(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or directory that is still covered."""

    pid: int
    """A process in the mount namespace."""
    path: str
    """For that process."""

    def remove(self) -> None:
        """Unmount it. Raises OSError."""
        if (child := processes.fork()) == 0:
            code = 1
            try:
                mounts = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY)
                root = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY)
                if not capabilities.has(Capability.SYS_ADMIN):
                    isolation.setns(fcntl.ioctl(mounts, _NS_GET_USERNS), CLONE_NEWUSER)
                isolation.setns(mounts, CLONE_NEWNS)
                os.fchdir(root)
                os.chroot(".")
                isolation.unmount(Path(self.path))
                code = 0
            except OSError as error:
                code = error.errno or 1
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise OSError(code, os.strerror(code))


def source_name() -> str:
    """The name for the covers of this process."""
    return f"mitml4-cover-{os.getpid()}-{_start_time(os.getpid())}"


def leftovers(*, ours: bool = False) -> list[Leftover]:
    """The covers without a helper in the mount namespaces that we can see, the last one first; with
    `ours`, those of this process."""
    seen: set[int] = set()
    found: list[Leftover] = []
    for pid in sorted(int(each) for each in os.listdir("/proc") if each.isdecimal()):
        with suppress(OSError):
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace not in seen:
                seen.add(namespace)
                paths = list(_covered(_mounts_of(pid), ours=ours))
                found += [Leftover(pid, path) for path in reversed(paths)]
    return found


def is_covered_by_a_session(pid: int) -> bool:
    """Whether a running helper covers files in the mount namespace of a process."""
    try:
        mounts = _mounts_of(pid)
    except OSError:
        return False
    found = filter(None, map(_source, mounts.splitlines()))
    return any(_start_time(int(each[1])) == each[2] for each in found)


def _mounts_of(pid: int) -> str:
    return Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")


def _source(line: str) -> re.Match[str] | None:
    """The helper of a mount; None if it is no cover."""
    return _SOURCE.fullmatch(line.partition(" - ")[2].split(" ")[1])


def _covered(mounts: str, *, ours: bool) -> Iterator[str]:
    """proc(5), /proc/pid/mountinfo."""
    for line in mounts.splitlines():
        if not (source := _source(line)):
            continue
        path = line.split(" ")[4]
        is_alive = _start_time(int(source[1])) == source[2]
        is_wanted = source[0] == source_name() if ours else not is_alive
        if is_wanted and path != str(WORKSHOP):
            yield _ESCAPED.sub(lambda match: chr(int(match[1], 8)), path)


def _start_time(pid: int) -> str | None:
    """When a process was started, as the kernel counts; None if it has ended. proc(5),
    /proc/pid/stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
