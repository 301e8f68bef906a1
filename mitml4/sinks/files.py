"""The files that a session writes: private, and the invoking user's under sudo."""

from __future__ import annotations

import errno
import os
import select
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mitml4.errors import MitmError
from mitml4.files import RefusedError, open_output

__all__ = ["open_file", "write_all", "write_failure", "write_parts"]

_IOV_MAX: Final = 1024  # linux/uio.h


def open_file(path: Path, *, append: bool = False, public: bool = False) -> int:
    """As `open_output`. Raises MitmError."""
    try:
        return open_output(path, append=append, public=public)
    except OSError as error:
        raise write_failure(str(path), error) from error


def write_all(descriptor: int, data: bytes, *, patience_s: float | None = None) -> None:
    """Write everything, however long that takes; or, to what is non-blocking, as long as it is
    ready within `patience_s`. Raises OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Someone who shares it, such as our parent, has made it non-blocking.
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            if not poll.poll(None if patience_s is None else patience_s * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "its reader stands still") from None


def write_parts(descriptor: int, parts: Sequence[bytes]) -> None:
    """Write everything without putting it together first. Raises OSError."""
    for start in range(0, len(parts), _IOV_MAX):
        group = parts[start : start + _IOV_MAX]
        try:
            written = os.writev(descriptor, group)
        except BlockingIOError:
            written = 0
        if written < sum(map(len, group)):
            write_all(descriptor, b"".join(group)[written:])


def write_failure(name: str, error: OSError) -> MitmError:
    """What to tell the user when `name` cannot be written."""
    place = shlex.quote(os.path.dirname(name) or ".")
    if isinstance(error, RefusedError):
        hint = f"{error.remedy} {shlex.quote(name)}"
        return MitmError(f"cannot write {name}: {error.strerror}", hint=hint)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            hint = f"df {place}"
        case errno.EFBIG:
            hint = "ulimit -f"
        case errno.ENOENT:
            hint = f"mkdir -p {place}"
        case _:
            hint = f"ls -ld {place} {shlex.quote(name)}"
    return MitmError(f"cannot write {name}: {error.strerror or error}", hint=hint)
