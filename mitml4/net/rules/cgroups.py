"""Cgroups of this host: found by name, and watched while programs of theirs come and go.

nft names a cgroup by its path below /sys/fs/cgroup, and the kernel then knows it by its inode: when
a unit restarts, its cgroup is made anew, and a rule for it matches no longer. cgroups(7).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from mitml4.errors import MachineError, UsageError
from mitml4.net.libc import checked, libc
from mitml4.net.rules.scope import CGROUPS, Cgroup
from mitml4.net.tools import environment

__all__ = ["CgroupWatch", "find_cgroup", "hierarchy"]

_MOUNTS: Final = Path("/proc/self/mountinfo")
_TIMEOUT_S: Final = 5

# linux/inotify.h
_IN_CREATE, _IN_DELETE, _IN_MOVED, _IN_ONLYDIR = 0x100, 0x200, 0xC0, 0x0100_0000
_LOOK_AGAIN_S: Final = 5.0
"""For the case that the kernel does not tell of a change."""
_MAX_EVENTS: Final = 65536


def find_cgroup(name: str, mounts: Path = _MOUNTS) -> Cgroup:
    """The cgroup with a path, in its hierarchy or in the file system, or of a systemd unit. Raises
    UsageError if there is none, MachineError if the host has no cgroups of version 2."""
    mount = hierarchy(mounts)
    path = _path(name, mount)
    if path == "/":
        raise UsageError("the cgroup / has all programs of this host", hint="--iface NAME")
    if set(path) & set('"*\n\t'):
        raise UsageError(f"nft cannot name the cgroup {path!r}", hint="--user NAME")
    cgroup = Cgroup(path, mount)
    if not cgroup.directory.is_dir():
        raise UsageError(
            f"there is no cgroup {name!r}", hint="systemd-cgls, or: cat /proc/PID/cgroup"
        )
    return cgroup


def hierarchy(mounts: Path = _MOUNTS) -> Path:
    """Where cgroups of version 2 are, with paths that nft knows. Raises MachineError."""
    found = [
        Path(row.split()[4])
        for row in mounts.read_text().splitlines()
        if row.partition(" - ")[2].startswith("cgroup2 ") and row.split()[3] == "/"
    ]
    if not found:
        raise MachineError(
            "this host has no cgroups of version 2",
            hint="--user NAME, or: mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    usable = [each for each in found if each.is_relative_to(CGROUPS)]
    if not usable:
        raise MachineError(
            f"nft knows cgroups below {CGROUPS}, and they are mounted at {found[0]}",
            hint=f"mount --bind {found[0]} {CGROUPS}/unified",
        )
    return usable[0]


def _path(name: str, mount: Path) -> str:
    parts = Path("/", name)
    for directory in (mount, CGROUPS):
        if parts.is_relative_to(directory):
            return _normal(str(parts.relative_to(directory)))
    if "/" in name or (mount / name).is_dir():
        return _normal(name)
    return _of_unit(name) or _searched(name, mount)


def _normal(path: str) -> str:
    return os.path.normpath(f"/{path.strip('/')}")


def _of_unit(name: str) -> str | None:
    """The cgroup of a running systemd unit, as systemd says."""
    if name.startswith("-"):
        return None
    command = ["systemctl", "show", "--property=ControlGroup", "--value", "--", name]
    with suppress(OSError, subprocess.TimeoutExpired):
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env=environment(),
            check=False,
        )
        return ended.stdout.strip() or None if ended.returncode == 0 else None
    return None


def _searched(name: str, mount: Path) -> str:
    """The first cgroup with this name, or that of a service."""
    names = (name, f"{name}.service")
    found = (
        _normal(str(Path(directory, each).relative_to(mount)))
        for directory, inside, _ in os.walk(mount)
        for each in names
        if each in inside
    )
    return next(found, f"/{name}")


class CgroupWatch:
    """Tells when cgroups are made anew. Close it."""

    def __init__(self, cgroups: Sequence[Cgroup]) -> None:
        """Raises MachineError."""
        self.cgroups = cgroups
        self._inodes = [each.inode for each in cgroups]
        try:
            self._inotify = checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            reason = f"cannot watch cgroups: {error.strerror}"
            raise MachineError(reason, hint="sysctl fs.inotify.max_user_instances") from error
        self._look_for_changes()

    async def changes(self) -> list[tuple[int, bool]]:
        """The indexes of the cgroups that have gone, or are there anew, and which of both; waits
        until there are some."""
        while True:
            if found := list(self._changed()):
                return found
            with trio.move_on_after(_LOOK_AGAIN_S):
                await trio.lowlevel.wait_readable(self._inotify)
            with suppress(BlockingIOError):
                os.read(self._inotify, _MAX_EVENTS)
            self._look_for_changes()

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._inotify)
        os.close(self._inotify)

    def _changed(self) -> Iterator[tuple[int, bool]]:
        for index, cgroup in enumerate(self.cgroups):
            inode = cgroup.inode
            if inode != self._inodes[index]:
                self._inodes[index] = inode
                yield index, inode is not None

    def _look_for_changes(self) -> None:
        """Let the kernel tell of changes in all directories above the cgroups."""
        for cgroup in self.cgroups:
            for directory in cgroup.directory.parents:
                if directory.is_relative_to(cgroup.mount):
                    mask = _IN_CREATE | _IN_DELETE | _IN_MOVED | _IN_ONLYDIR
                    path = ctypes.c_char_p(os.fsencode(directory))
                    libc.inotify_add_watch(self._inotify, path, mask)  # it may have gone
