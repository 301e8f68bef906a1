"""The programs in a network namespace, by the mount namespaces that they share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.attach.covers import MountNamespace
from mitml4.net.attach.root import Root
from mitml4.net.attach.target import Target

__all__ = ["Program", "ProgramGroup", "program_groups"]

_NS_GET_USERNS: Final = 0xB701  # linux/nsfs.h
_MAX_NAMESPACES: Final = 8
"""The number of mount namespaces that are looked at."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program."""

    executable: str
    arguments: tuple[str, ...]
    environ: dict[str, str]
    """Those of its variables that are of interest."""

    @classmethod
    def of_process(cls, pid: int, variables: Collection[str]) -> Self:
        """What of it we may see, in the paths of its mount namespace."""
        executable = ""
        with suppress(OSError):
            executable = os.readlink(f"/proc/{pid}/exe")
        settings = (each.partition("=") for each in _strings(pid, "environ"))
        environ = {name: value for name, _, value in settings if name in variables}
        return cls(executable, tuple(_strings(pid, "cmdline")), environ)


@dataclass(frozen=True, slots=True)
class ProgramGroup:
    """The programs in one mount namespace. Close it."""

    pid: int
    """One of them."""
    namespace: MountNamespace
    root: Root
    programs: tuple[Program, ...]

    @classmethod
    def of_processes(cls, pids: list[int], variables: Collection[str]) -> Self:
        """Raises OSError, MachineError."""
        first = pids[0]
        with ExitStack() as undo:
            mounts = os.open(f"/proc/{first}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, mounts)
            owner: int = fcntl.ioctl(mounts, _NS_GET_USERNS)
            undo.callback(os.close, owner)
            os.set_inheritable(owner, False)
            root = Root.of_process(first)
            undo.pop_all()
        programs = tuple(Program.of_process(pid, variables) for pid in pids)
        return cls(first, MountNamespace(mounts, owner), root, programs)

    def is_shared(self, target: int) -> bool:
        """Whether a mount on this file (a descriptor) would appear among the mounts of ours, too:
        its own mount belongs to a peer group from which ours receive mounts
        (mount_namespaces(7))."""
        described = Path(f"/proc/self/fdinfo/{target}").read_text().split()
        number = described[described.index("mnt_id:") + 1]
        with suppress(OSError):
            lines = Path(f"/proc/{self.pid}/mountinfo").read_text(errors="replace").splitlines()
            groups = next(
                (_peer_groups(each) for each in lines if each.split()[0] == number), set()
            )
            shared = {each.partition(":")[2] for each in groups if each.startswith("shared:")}
            ours = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
            return any(
                each.partition(":")[2] in shared for line in ours for each in _peer_groups(line)
            )
        return True

    def close(self) -> None:
        for descriptor in (self.namespace.mounts, self.namespace.user):
            if descriptor is not None:
                os.close(descriptor)
        self.root.close()


def program_groups(target: Target, variables: Collection[str]) -> tuple[list[ProgramGroup], int]:
    """The programs of a target's network namespace, with these variables of theirs; not those that
    have the host's mounts or our own, or that may not be looked at. The process that was named
    comes first. The number is that of the groups that are left out, since there are too many."""
    pids: dict[int, list[int]] = {}
    listed = sorted(int(each) for each in os.listdir("/proc") if each.isdecimal())
    for pid in sorted(listed, key=lambda each: each != target.pid):
        with suppress(OSError):
            if target.is_of(pid):
                mounts = os.stat(f"/proc/{pid}/ns/mnt").st_ino
                pids.setdefault(mounts, []).append(pid)
    for pid in _own_line():
        with suppress(OSError):
            pids.pop(os.stat(f"/proc/{pid}/ns/mnt").st_ino, None)
    groups = []
    for together in list(pids.values())[:_MAX_NAMESPACES]:
        with suppress(OSError, MachineError):
            groups.append(ProgramGroup.of_processes(together, variables))
    return groups, max(0, len(pids) - _MAX_NAMESPACES)


def _own_line() -> Iterator[int]:
    """This process and those that it comes from: it may have been started with mounts of its own,
    on a host whose programs must not be touched."""
    pid = os.getpid()
    while pid:
        yield pid
        try:
            # proc(5), /proc/pid/stat: the parent comes second behind the name.
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except OSError:
            return


def _strings(pid: int, name: str) -> list[str]:
    with suppress(OSError):
        content = Path(f"/proc/{pid}/{name}").read_bytes()
        return [os.fsdecode(each) for each in content.split(b"\0") if each]
    return []


def _peer_groups(line: str) -> set[str]:
    """The peer groups of a mount, as `shared:N` and `master:N`. proc(5), /proc/pid/mountinfo."""
    fields = line.partition(" - ")[0].split(" ")[6:]
    return {each for each in fields if each.startswith(("shared:", "master:"))}
