"""Output files: readable by their owner only; under sudo they belong to the invoking user."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from mitml4.errors import LIMITS, MitmError, limit_hint
from mitml4.files import RefusedError, open_output
from mitml4.whole_writes import is_regular, write_all, write_parts

__all__ = [
    "OutputFile",
    "begin_file",
    "open_file",
    "write_failure",
]


def open_file(path: Path, *, append: bool = False, public: bool = False) -> int:
    """Like `open_output`. Raises MitmError."""
    try:
        return open_output(path, append=append, public=public)
    except OSError as error:
        raise write_failure(str(path), error) from error


def begin_file(path: Path, head: bytes, tail: bytes = b"") -> int:
    """Open a file and write its head; to a regular file also its tail, so that it is complete from
    the start. Raises MitmError, and leaves no empty file then."""
    descriptor = open_file(path)
    try:
        write_all(descriptor, head + tail if is_regular(descriptor) else head)
    except OSError as error:
        if is_regular(descriptor):
            path.unlink(missing_ok=True)
        os.close(descriptor)
        raise write_failure(str(path), error) from error
    return descriptor


class OutputFile:
    """An open output file, and its name for errors."""

    def __init__(self, descriptor: int, name: str, *, is_ours: bool = True) -> None:
        """`is_ours`: whether `close` closes the descriptor."""
        self.descriptor = descriptor
        self.name = name
        self._is_ours = is_ours
        self._had_a_name = os.fstat(descriptor).st_nlink > 0

    def write(self, parts: Sequence[bytes]) -> None:
        """Write all parts. Raises OSError; a regular file then ends after the last whole part."""
        write_parts(self.descriptor, parts)

    def close(self) -> None:
        """Raises OSError for errors that the file system reports only now, and if the file has been
        removed: nobody can read its content then."""
        if not self._is_ours:
            return
        try:
            if self._had_a_name and os.fstat(self.descriptor).st_nlink == 0:
                raise FileNotFoundError(errno.ENOENT, "it was removed while it was being written")
        finally:
            os.close(self.descriptor)

    def failure(self, error: OSError) -> MitmError:
        """The error to show to the user."""
        return write_failure(self.name, error)


def write_failure(name: str, error: OSError) -> MitmError:
    """The error to show to the user when `name` cannot be written."""
    directory = os.path.dirname(name) or "."
    place = shlex.quote(directory)
    if isinstance(error, RefusedError):
        hint = f"{error.remedy} {shlex.quote(name)}"
        return MitmError(f"cannot write {name}: {error.strerror}", hint=hint)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = f"df {place}"
        case number if number in LIMITS:
            hint = limit_hint(error)
        case errno.ENOENT if not os.path.isdir(directory):
            hint = f"mkdir -p {place}"
        case _:
            hint = f"ls -ld {place} {shlex.quote(name)}"
    return MitmError(f"cannot write {name}: {error.strerror or error}", hint=hint)
