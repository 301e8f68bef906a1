"""Writes all that is given, or leaves a regular file as it was.

A write may take only a part: a pipe is full, a disk is full, or another process has made the
descriptor non-blocking.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final

__all__ = ["is_regular", "write_all", "write_parts"]

_IOV_MAX: Final = 1024  # linux/uio.h


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
    if not count or not is_regular(descriptor):
        return
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    if os.fstat(descriptor).st_size == end:
        with suppress(OSError):
            os.ftruncate(descriptor, end - count)
            os.lseek(descriptor, -count, os.SEEK_CUR)


def is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
