"""Functions that create and enter namespaces, and mount inside of them.

Each raises the kernel's OSError. A network namespace belongs to a thread; a user or mount namespace
requires a process with one thread. Constants: linux/sched.h, linux/mount.h.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from mitml4.net import capabilities
from mitml4.net.capabilities import Capability
from mitml4.net.libc import checked, libc

__all__ = [
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWUSER",
    "enter_network",
    "enter_user_namespace",
    "mount_bind",
    "mount_slave",
    "mount_tmpfs",
    "setns",
    "unmount",
    "unshare",
    "unshare_with_power",
    "unshare_without_power",
]

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_SLAVE = 2, 4, 0x1000, 0x4000, 0x80000
_MNT_DETACH: Final = 2


def unshare(kinds: int) -> None:
    """Move this thread into new namespaces."""
    checked(libc.unshare(kinds))


def setns(descriptor: int, kind: int) -> None:
    """Move this thread into an existing namespace."""
    checked(libc.setns(descriptor, kind))


def unshare_with_power(kinds: int) -> bool:
    """Like `unshare`, with the privileges of the host's root; False if we lack them."""
    if not capabilities.has(Capability.NET_ADMIN, Capability.NET_RAW, Capability.SYS_ADMIN):
        return False
    try:
        unshare(kinds)
    except PermissionError:  # a container's filter may refuse it
        return False
    return True


def unshare_without_power(kinds: int, *, root: bool) -> None:
    """Like `unshare`, for any user: inside a new user namespace."""
    enter_user_namespace(root=root)
    unshare(kinds)


def enter_network() -> None:
    """Move this process into a new network namespace, with privileges over it."""
    if not unshare_with_power(CLONE_NEWNET):
        unshare_without_power(CLONE_NEWNET, root=True)


def enter_user_namespace(*, root: bool) -> None:
    """Move this process into a new user namespace, which contains no other users: as its root, or
    with our user id."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny")  # user_namespaces(7): before a user's gid_map
    (process / "uid_map").write_text(f"{0 if root else uid} {uid} 1")
    (process / "gid_map").write_text(f"{0 if root else gid} {gid} 1")


def mount_slave() -> None:
    """Keep the mounts of this namespace from appearing on the host; the host's mounts still appear
    here."""
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None))


def mount_tmpfs(directory: Path, source: str = "mitml4") -> None:
    """Mount an empty file system in memory over a directory; the list of mounts shows `source`."""
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    checked(libc.mount(os.fsencode(source), os.fsencode(directory), b"tmpfs", flags, b"mode=755"))


def mount_bind(source: Path | str, target: Path) -> None:
    """Mount a file or directory, with all mounts below it, over another one."""
    flags = ctypes.c_ulong(_MS_BIND | _MS_REC)
    checked(libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None))


def unmount(target: Path) -> None:
    """Unmount the topmost mount from a file or directory at once; open files in it stay usable."""
    checked(libc.umount2(os.fsencode(target), _MNT_DETACH))
