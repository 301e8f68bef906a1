"""Single files that have other content in a command's mount namespace.

A mount needs an existing file. If there is none, one is created, on the host too, with the content
that its program would have given it, so that nothing wrong is left if that program writes next to
it. Otherwise it is removed with the namespace. Sessions that share such a file hold a lock on it;
the last one removes it, and the directories that the first one created for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.net import isolation

__all__ = ["Covers"]

_MADE: Final = "user.mitml4.directories"
"""An extended attribute: the number of directories that were created for the file."""


@dataclass(frozen=True, slots=True)
class _Stopgap:
    """A file that exists only to be mounted over."""

    path: Path
    content: bytes
    descriptor: int
    directories: int
    """The number of directories that this session has created for it."""

    def directories_made(self) -> int:
        """By the session that has created the file, if the file system stores that."""
        try:
            return int(os.getxattr(self.descriptor, _MADE))
        except OSError:
            return self.directories


class Covers:
    """The covered files in the mount namespace of this process."""

    def __init__(self) -> None:
        self._stopgaps: list[_Stopgap] = []

    def lay(self, file: Path, source: Path, stopgap: bytes | None) -> None:
        """Mount `source` over a file. With a `stopgap`, the file need not exist.

        Raises OSError.
        """
        if stopgap is not None:
            self._stopgaps.append(_make(file, stopgap))
        isolation.mount_bind(source, file)

    def remove(self) -> None:
        """Remove each stopgap that no session uses, unless a program has written next to it."""
        while self._stopgaps:
            stopgap = self._stopgaps.pop()
            with contextlib.suppress(OSError):
                _remove(stopgap)
            os.close(stopgap.descriptor)


def _make(file: Path, content: bytes) -> _Stopgap:
    directories = []
    for directory in (file.parent, *file.parent.parents):
        if directory.exists():
            break
        directories.append(directory)
    for directory in reversed(directories):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.fstat(descriptor).st_size == 0:
        os.pwrite(descriptor, content, 0)
        with contextlib.suppress(OSError):
            os.setxattr(descriptor, _MADE, str(len(directories)).encode())
    return _Stopgap(file, content, descriptor, len(directories))


def _remove(stopgap: _Stopgap) -> None:
    fcntl.flock(stopgap.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file = stopgap.path
    isolation.unmount(file)
    unchanged = file.read_bytes() == stopgap.content
    if unchanged and os.listdir(file.parent) == [file.name]:
        file.unlink()
        for directory in file.parents[: stopgap.directories_made()]:
            directory.rmdir()
