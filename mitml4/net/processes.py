"""What a process is to its parent, its children, and its user.

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
    """As os.fork, with no thread but this one. Raises MachineError where the limits allow none."""
    try:
        return os.fork()
    except OSError as error:
        reason = f"cannot start a process: {error.strerror}"
        raise MachineError(reason, hint="ulimit -u") from error


def die_with_parent(number: signal.Signals, parent: int) -> None:
    """Get a signal when the parent (its process id) ends. Cleared by a set-user-ID program."""
    prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), number)


def become_subreaper() -> None:
    """Descendants whose parent ends become children of this process."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def close_memory() -> None:
    """Let nobody else read this process: not its memory, nor its descriptors, nor a core dump of
    it. Only CAP_SYS_PTRACE can, over the user namespace that it belongs to (ptrace(2))."""
    prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Let no program that is executed from here on have more power than this process."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def become_user(uid: int, gid: int) -> None:
    """Be another user for good, in no group but this one, as if that user had started us.

    Raises OSError.
    """
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # Else our own files in /proc would belong to root (prctl(2)).
    prctl(_PR_SET_DUMPABLE, 1)
