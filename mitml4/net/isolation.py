"""Namespaces, made and entered, and mounts that nobody outside of them sees.

Each raises OSError as the kernel gives it. A network namespace belongs to a thread; a user or a
mount namespace is for a process that has one thread. Constants: linux/sched.h, linux/mount.h.
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
    """Move this thread into a namespace that is there."""
    checked(libc.setns(descriptor, kind))


def unshare_with_power(kinds: int) -> bool:
    """The same as `unshare`, as the host's root may; False for those who are not that."""
    if not capabilities.has(Capability.NET_ADMIN, Capability.NET_RAW, Capability.SYS_ADMIN):
        return False
    try:
        unshare(kinds)
    except PermissionError:  # a container's filter may know better
        return False
    return True


def unshare_without_power(kinds: int, *, root: bool) -> None:
    """The same as any user may: in a user namespace, which is new as well."""
    enter_user_namespace(root=root)
    unshare(kinds)


def enter_network() -> None:
    """Move this process into a new network namespace, as root over it."""
    if not unshare_with_power(CLONE_NEWNET):
        unshare_without_power(CLONE_NEWNET, root=True)


def enter_user_namespace(*, root: bool) -> None:
    """Move this process into a new user namespace, which knows nobody else: as its root, or as who
    we are."""
    uid, gid = os.geteuid(), os.getegid()
    unshare(CLONE_NEWUSER)
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny")  # user_namespaces(7): before a user's gid_map
    (process / "uid_map").write_text(f"{0 if root else uid} {uid} 1")
    (process / "gid_map").write_text(f"{0 if root else gid} {gid} 1")


def mount_slave() -> None:
    """Let no mount of this namespace show on the host; the host's still show here."""
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None))


def mount_tmpfs(directory: Path) -> None:
    """Put an empty file system, which lives in memory, over a directory."""
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    checked(libc.mount(b"mitml4", os.fsencode(directory), b"tmpfs", flags, b"mode=755"))


def mount_bind(source: Path | str, target: Path) -> None:
    """Let a file or a directory show another one, with all that is mounted in it."""
    flags = ctypes.c_ulong(_MS_BIND | _MS_REC)
    checked(libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None))


def unmount(target: Path) -> None:
    """Take the topmost mount off a file or a directory, at once; who has it open keeps it."""
    checked(libc.umount2(os.fsencode(target), _MNT_DETACH))
