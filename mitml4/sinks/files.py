"""Output files: readable by their owner only; under sudo they belong to the invoking user."""

from __future__ import annotations

import errno
import os
import select
import shlex
import stat
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Final

from mitml4.errors import MitmError
from mitml4.files import RefusedError, open_output

__all__ = [
    "OutputFile",
    "begin_file",
    "open_file",
    "write_all",
    "write_failure",
    "write_parts",
]

_IOV_MAX: Final = 1024  # linux/uio.h


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
        write_all(descriptor, head + tail if _is_regular(descriptor) else head)
    except OSError as error:
        if _is_regular(descriptor):
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


def write_all(
    descriptor: int, data: bytes, *, timeout_s: float | None = None, undo: bool = True
) -> None:
    """Write everything, however long that takes. `timeout_s` limits how long a non-blocking
    descriptor may not be ready. Raises OSError.

    After an error, what was written to a regular file is cut off again; without `undo`, the caller
    does that.
    """
    written, error = _write(descriptor, data, timeout_s)
    if error:
        if undo:
            _cut_off(descriptor, written)
        raise error


def write_parts(descriptor: int, parts: Sequence[bytes]) -> None:
    """Write all parts without joining them. Raises OSError; a regular file then ends after the last
    whole part."""
    for start in range(0, len(parts), _IOV_MAX):
        group = parts[start : start + _IOV_MAX]
        try:
            written, error = os.writev(descriptor, group), None
        except OSError as refusal:
            written, error = 0, None if isinstance(refusal, BlockingIOError) else refusal
        if error is None and written < sum(map(len, group)):
            more, error = _write(descriptor, b"".join(group)[written:], None)
            written += more
        if error:
            ends = (end for end in accumulate(map(len, group)) if end <= written)
            _cut_off(descriptor, written - max(ends, default=0))
            raise error


def _write(descriptor: int, data: bytes, timeout_s: float | None) -> tuple[int, OSError | None]:
    """How much could be written, and the error that stopped it."""
    done = 0
    view = memoryview(data)
    while done < len(view):
        try:
            done += os.write(descriptor, view[done:])
        except BlockingIOError:
            # Another process that shares it, such as our parent, has made it non-blocking.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            if not poll.poll(None if timeout_s is None else timeout_s * 1000):
                return done, TimeoutError(errno.ETIMEDOUT, "its reader stands still")
        except OSError as error:
            return done, error
    return done, None


def _cut_off(descriptor: int, count: int) -> None:
    """Remove what was written last, unless another process has appended since."""
    if not count or not _is_regular(descriptor):
        return
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    if os.fstat(descriptor).st_size == end:
        with suppress(OSError):
            os.ftruncate(descriptor, end - count)
            os.lseek(descriptor, -count, os.SEEK_CUR)


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


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
        case errno.EFBIG:
            hint = "ulimit -f"
        case errno.ENOENT if not os.path.isdir(directory):
            hint = f"mkdir -p {place}"
        case _:
            hint = f"ls -ld {place} {shlex.quote(name)}"
    return MitmError(f"cannot write {name}: {error.strerror or error}", hint=hint)
