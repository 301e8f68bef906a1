"""Namespaces, mounts, capabilities and kinship: the kernel's calls that Python 3.11 lacks.

Each but `fork` raises OSError as the kernel gives it. Constants: linux/sched.h, linux/mount.h,
linux/prctl.h, linux/capability.h.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Final

from mitml4.errors import MachineError

__all__ = [
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWUSER",
    "Capability",
    "become_subreaper",
    "become_user",
    "die_with_parent",
    "drop_for_good",
    "effective_capabilities",
    "fork",
    "hand_down",
    "mount_slave",
    "mount_tmpfs",
    "setns",
    "unshare",
]

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_SLAVE = 2, 4, 0x4000, 0x80000

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """The capabilities that are spoken of here."""

    NET_ADMIN = 12
    SYS_ADMIN = 21


def unshare(kinds: int) -> None:
    """Move this process (which has one thread) into new namespaces."""
    _check(_libc.unshare(kinds))


def setns(descriptor: int, kind: int) -> None:
    """Move this process (which has one thread) into a namespace that is there."""
    _check(_libc.setns(descriptor, kind))


def mount_slave() -> None:
    """Let no mount of this namespace show on the host; the host's still show here."""
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None))


def mount_tmpfs(directory: Path) -> None:
    """Put an empty file system, which lives in memory, over a directory."""
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    _check(_libc.mount(b"mitml4", os.fsencode(directory), b"tmpfs", flags, b"mode=755"))


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Get a signal when the parent (its process id) ends. Cleared by a set-user-ID program."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), number)


def fork() -> int:
    """As os.fork, with no thread but this one. Raises MachineError where the limits allow none."""
    try:
        return os.fork()
    except OSError as error:
        reason = f"cannot start a process: {error.strerror}"
        raise MachineError(reason, hint="ulimit -u") from error


def become_subreaper() -> None:
    """Descendants whose parent ends become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def become_user(uid: int, gid: int) -> None:
    """Be another user for good, in no group but this one, as if that user had started us."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Else our own files in /proc would belong to root (prctl(2)).
    _prctl(_PR_SET_DUMPABLE, 1)


def effective_capabilities() -> int:
    """A bit for each capability that this process has."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def hand_down(capabilities: Iterable[Capability]) -> None:
    """Let exactly these of ours be had by programs that we execute; by none, if none are given."""
    wanted = sum(1 << capability for capability in capabilities)
    ours = effective_capabilities()
    _capset(effective=ours, permitted=ours, inheritable=wanted)
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in Capability:
        if wanted & 1 << capability:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def drop_for_good(capabilities: Iterable[Capability]) -> None:
    """Let no program that is executed from here on have these, whatever its file says."""
    for capability in capabilities:
        if _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1:
            _prctl(_PR_CAPBSET_DROP, capability)


def _capset(*, effective: int, permitted: int, inheritable: int) -> None:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    halves = [
        word & 0xFFFFFFFF
        for shift in (0, 32)
        for word in (effective >> shift, permitted >> shift, inheritable >> shift)
    ]
    _check(_libc.capset(header, struct.pack("=6I", *halves)))


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *padded))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
