"""New files for single flows, which a person asks for with the key `w`: their events as JSON
lines."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from mitml4.invoker import sudo_user
from mitml4.net.capabilities import Capability
from mitml4.sinks.writer import Writer
from mitml4.whole_writes import write_all

__all__ = ["FlowFiles", "Saved", "save", "write_flow"]

_NUMBER: Final = struct.Struct("=Q")
_MAX_NAMES: Final = 1000
_KEPT: Final = (Capability.CHOWN, Capability.DAC_OVERRIDE)
"""Needed to create a file in another user's directory, and to make it theirs."""


def write_flow(number: int, lines: Iterable[bytes]) -> str:
    """Write the lines of a flow to a new file in the current directory. Returns its name. Raises
    OSError, and leaves no file then."""
    return _write(number, b"".join(lines), _owner())


class FlowFiles:
    """The same for a session, which gives up its rights meanwhile. The directory is the one where
    it began. Nothing is created before the first flow is written."""

    def __init__(self) -> None:
        """Raises MachineError."""
        owner = _owner()

        def obey(request: bytes) -> bytes:
            (number,) = _NUMBER.unpack_from(request)
            return _write(number, request[_NUMBER.size :], owner).encode()

        self._writer = Writer(obey, keep=_KEPT)

    def write(self, number: int, lines: Iterable[bytes]) -> str:
        """Like `write_flow`. Blocks."""
        return self._writer.ask(_NUMBER.pack(number) + b"".join(lines)).decode()

    def close(self) -> None:
        self._writer.close()


class Saved(NamedTuple):
    """What has become of a request to write a flow."""

    said: str
    """What to tell the person who has asked for it."""
    name: str | None
    """The name of the file; None: there is none."""


def save(
    write: Callable[[int, Iterable[bytes]], str],
    number: int,
    lines: Sequence[bytes],
    *,
    is_open: bool,
    missing: int = 0,
) -> Saved:
    """Write a flow. `missing` is the number of its events that are not there."""
    try:
        name = write(number, lines)
    except OSError as error:
        return Saved(f"cannot write flow {number}: {error.strerror or error}", None)
    so_far = " so far" if is_open else ""
    cut = f"; {missing:,} earlier ones are not kept" if missing else ""
    return Saved(f"wrote {name}: {len(lines):,} events of flow {number}{so_far}{cut}", name)


def _owner() -> tuple[int, int]:
    user = sudo_user()
    return (user.pw_uid, user.pw_gid) if user else (os.geteuid(), os.getegid())


def _write(number: int, content: bytes, owner: tuple[int, int]) -> str:
    descriptor, name = _created(number)
    try:
        write_all(descriptor, content)
        if os.fstat(descriptor).st_uid != owner[0]:
            os.fchown(descriptor, *owner)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise
    finally:
        os.close(descriptor)
    return name


def _created(number: int) -> tuple[int, str]:
    """A new file that only its owner can read, and its name, which no file had before."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for count in range(1, _MAX_NAMES):
        name = f"flow-{number}.jsonl" if count == 1 else f"flow-{number}-{count}.jsonl"
        with suppress(FileExistsError):
            return os.open(name, flags, 0o600), name
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
