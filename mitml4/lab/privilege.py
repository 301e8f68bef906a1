"""Root's powers over namespaces of one's own, for a user who is not root.

In a user namespace of its own a process may make network namespaces and rule them; over the host's
it has no more power than before (user_namespaces(7)).
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
    """Move this process into a new user namespace, as its uid 0. Before any thread is started.

    Raises MachineError where the machine does not let users do so.
    """
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise MachineError(
            f"users may not make namespaces here: {os.strerror(ctypes.get_errno())}",
            hint="sudo mitml4 demo",
        )
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny")  # the kernel's condition for a user's gid_map
    (process / "uid_map").write_text(f"0 {uid} 1")
    (process / "gid_map").write_text(f"0 {gid} 1")
