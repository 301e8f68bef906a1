"""A process's relation to its parent, its children, and its user.

Constants: linux/prctl.h.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from mitml4.errors import MachineError
from mitml4.net.libc import prctl

__all__ = [
    "become_subreaper",
    "become_user",
    "close_memory",
    "die_with_parent",
    "forbid_new_privileges",
    "fork",
]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38


def fork() -> int:
    """Like os.fork; call it while there is one thread. Raises MachineError if a limit forbids
    it."""
    try:
        return os.fork()
    except OSError as error:
        reason = f"cannot start a process: {error.strerror}"
        raise MachineError(reason, hint="ulimit -u") from error


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Get a signal when the parent (its process id) ends. A set-user-ID program clears this."""
    prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), number)


def become_subreaper() -> None:
    """Descendants whose parent ends become children of this process."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def close_memory() -> None:
    """Forbid other processes to read this one: its memory, its descriptors, a core dump. Only
    CAP_SYS_PTRACE over its user namespace still permits it (ptrace(2))."""
    prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Programs that are executed from here on cannot gain privileges."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def become_user(uid: int, gid: int) -> None:
    """Become another user permanently, with that user's group only, as if that user had started us.

    Raises OSError.
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Otherwise our own files in /proc would belong to root (prctl(2)).
    prctl(_PR_SET_DUMPABLE, 1)
