"""The calls of a start and an end of a session, and how they may fail."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["CALLS", "UNREAL"]

_FULL: Final = ("EMFILE", "ENOMEM")

CALLS: Final[dict[str, Sequence[str]]] = {
    "openat": _FULL,
    "read": ("EIO",),
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO",),
    "ftruncate": ("EIO",),
    "rename,renameat,renameat2": ("ENOSPC",),
    "link,linkat": ("ENOSPC",),
    "mkdir,mkdirat": ("ENOSPC",),
    "chmod,fchmod,fchmodat": ("EPERM",),
    "chown,fchown,fchownat": ("EPERM",),
    "socket": ("EMFILE", "ENOBUFS"),
    "socketpair": _FULL,
    "bind": ("EADDRINUSE", "ENOMEM"),
    "listen": ("EADDRINUSE",),
    "connect": ("ENOMEM",),
    "accept4": ("EMFILE",),
    "setsockopt": ("ENOMEM",),
    "getsockopt": ("ENOBUFS",),
    "getsockname": ("ENOBUFS",),
    "sendto": ("ENOBUFS",),
    "sendmsg": ("ENOBUFS",),
    "recvfrom": ("ENOBUFS", "EINTR"),
    "recvmsg": ("ENOMEM", "EINTR"),
    "pipe2": _FULL,
    "dup,dup2,dup3": ("EMFILE",),
    "fcntl": ("EMFILE",),
    "ioctl": ("ENOMEM",),
    "epoll_create1": _FULL,
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "eventfd2": _FULL,
    "timerfd_create": _FULL,
    "inotify_init1": _FULL,
    "inotify_add_watch": ("ENOSPC",),
    "memfd_create": _FULL,
    "pidfd_open": _FULL,
    "clone,clone3": ("EAGAIN", "ENOMEM"),
    "vfork,fork": ("EAGAIN",),
    "execve": ("ENOMEM",),
    "wait4": ("EINTR",),
    "unshare": ("ENOSPC", "EPERM"),
    "setns": ("EPERM", "ENOMEM"),
    "mount": ("ENOMEM", "EPERM"),
    "umount2": ("EBUSY",),
    "pivot_root": ("EBUSY",),
    "prctl": ("EPERM",),
    "capset": ("EPERM",),
    "seccomp": ("ENOMEM",),
    "setresuid,setresgid,setgroups,setuid,setgid": ("EAGAIN",),
    "setsid": ("EPERM",),
    "prlimit64": ("EPERM",),
    "bpf": ("ENOMEM",),
}
"""The calls of a start and an end, and how they may fail. Left out is memory that cannot be mapped,
and looking at files (stat, readlink): Python takes what it cannot look at as not there."""

UNREAL: Final = re.compile(
    r'sendto\(\d+, "\\0", 1, 0, NULL, 0\b|recvfrom.*, 65536, 0, NULL, NULL'
    r'|write\(\d+, "\\\d+", 1\b'
    r"|EPOLL_CTL_(MOD|DEL)|F_[GS]ET(FL|FD)|FIONBIO|prlimit64\(0, \w+, NULL"
)
"""What no kernel does: refuse the byte by which trio is woken, the flags of a descriptor,
epoll_ctl where it adds nothing, or to tell a limit."""
