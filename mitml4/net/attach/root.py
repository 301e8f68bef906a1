"""The files of a process in another mount namespace, without entering it.

Every path is resolved inside the root of that process, symbolic links included (openat2(2),
RESOLVE_IN_ROOT): its owner may have made them to lead elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from typing import Final, Self

from mitml4.errors import MachineError
from mitml4.net.libc import checked, libc

__all__ = ["Root"]

_OPENAT2: Final = 437  # the same number on every machine
_OPEN_HOW: Final = struct.Struct("=QQQ")  # linux/openat2.h
_RESOLVE_IN_ROOT: Final = 0x10
_MAX_FOUND: Final = 64
"""The number of paths that a pattern may stand for."""


class Root:
    """The root directory of a process. Close it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of_process(cls, pid: int) -> Self:
        """Raises MachineError if its files are closed to us, or the kernel is too old."""
        try:
            root = cls(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            os.close(root.open("/", os.O_PATH | os.O_DIRECTORY))
        except OSError as error:
            reason = f"cannot see the files of process {pid}: {error.strerror}"
            raise MachineError(reason, hint=f"sudo ls /proc/{pid}/root/") from None
        return root

    @property
    def is_ours(self) -> bool:
        """Whether it is this process's root directory: of a program that `ip netns exec` has
        started, for example."""
        theirs, ours = os.fstat(self._descriptor), os.stat("/")
        return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)

    def open(self, path: str, flags: int) -> int:
        """A descriptor of a file. Raises OSError."""
        how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
        size = ctypes.c_size_t(_OPEN_HOW.size)
        return checked(libc.syscall(_OPENAT2, self._descriptor, os.fsencode(path), how, size))

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A descriptor that names a file or directory. Raises OSError."""
        descriptor = self.open(path, os.O_PATH)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of a regular file; None if there is none, or it is longer than the limit."""
        with suppress(OSError):
            descriptor = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            with os.fdopen(descriptor, "rb") as file:
                found = os.fstat(file.fileno())
                if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
                    return file.read(limit)
        return None

    def names(self, path: str) -> list[str]:
        """The names in a directory; empty if there is none."""
        with suppress(OSError):
            descriptor = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                return sorted(os.listdir(descriptor))
            finally:
                os.close(descriptor)
        return []

    def matching(self, pattern: str) -> list[str]:
        """The paths of existing files that match an absolute pattern of the shell."""
        found = list(self._expand("", pattern.strip("/").split("/")))
        return found[:_MAX_FOUND]

    def _expand(self, done: str, parts: list[str]) -> Iterator[str]:
        while parts and not any(mark in parts[0] for mark in "*?["):
            done, parts = f"{done}/{parts[0]}", parts[1:]
        if not parts:
            if self._exists(done):
                yield done
            return
        for name in self.names(done or "/")[:_MAX_FOUND]:
            hidden = name.startswith(".") and not parts[0].startswith(".")
            if fnmatchcase(name, parts[0]) and not hidden:
                yield from self._expand(f"{done}/{name}", parts[1:])

    def _exists(self, path: str) -> bool:
        with suppress(OSError):
            os.close(self.open(path, os.O_PATH))
            return True
        return False

    def close(self) -> None:
        os.close(self._descriptor)
