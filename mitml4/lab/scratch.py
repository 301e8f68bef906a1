"""The demo's directory. It is locked while the demo runs, so an abandoned one can be recognised."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

__all__ = ["abandoned_directories", "remove_abandoned", "scratch_directory"]

_PREFIX: Final = "mitml4-demo-"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A temporary directory, which is removed at the end."""
    directory, lock = _make()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def abandoned_directories() -> list[Path]:
    """The directories of demos that were killed."""
    places = sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"))
    return [place for place in places if _is_abandoned(place)]


def remove_abandoned(directory: Path) -> None:
    """Remove one of them, unless a demo uses it now. Raises OSError."""
    lock = _lock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        shutil.rmtree(directory)
    finally:
        os.close(lock)


def _make() -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with suppress(FileNotFoundError):
            lock = _lock(directory, fcntl.LOCK_EX)
            if directory.exists():
                return directory, lock
            os.close(lock)  # another process took it for abandoned before we had the lock


def _is_abandoned(place: Path) -> bool:
    try:
        os.close(_lock(place, fcntl.LOCK_EX | fcntl.LOCK_NB))
    except OSError:  # it is locked, or not a directory
        return False
    return True


def _lock(directory: Path, how: int) -> int:
    """Returns the descriptor that holds the lock. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
