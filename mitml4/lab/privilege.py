"""Privileges over new namespaces, for a user who is not root.

In a new user namespace, a process may create network namespaces and configure them; it gets no
privileges over the host's (user_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from mitml4.errors import MachineError

__all__ = ["become_root_of_a_user_namespace"]

_CLONE_NEWUSER: Final = 0x10000000  # linux/sched.h


def become_root_of_a_user_namespace() -> None:
    """Move this process into a new user namespace, as its uid 0. Call it before any thread is
    started.

    Raises MachineError if users may not do that on this machine.
    """
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise MachineError(
            f"users may not make namespaces here: {os.strerror(ctypes.get_errno())}",
            hint="sudo mitml4 demo",
        )
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny")  # the kernel requires it before a user's gid_map
    (process / "uid_map").write_text(f"0 {uid} 1")
    (process / "gid_map").write_text(f"0 {gid} 1")
