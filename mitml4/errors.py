"""The errors that mitml4 raises deliberately, each with its exit code and a hint.

A hint is the next command to type, or the next thing to check. The command line prints
``error: MESSAGE`` and ``hint: HINT`` and nothing else; a traceback is a bug.
"""

from __future__ import annotations

import errno
import os
import shlex
from enum import IntEnum
from typing import Final

__all__ = [
    "LIMITS",
    "CaptureError",
    "CertificateError",
    "ExitCode",
    "MachineError",
    "MitmError",
    "ProtocolError",
    "UsageError",
    "cannot_read",
    "limit_hint",
]

LIMITS: Final = {
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "sysctl fs.file-nr",
    errno.EAGAIN: "ulimit -u",
    errno.EFBIG: "ulimit -f",
    errno.ENOMEM: "free -m",
    errno.ENOBUFS: "free -m",
    errno.EADDRINUSE: "ss -s",
}
"""What the machine lacks by the error that tells it, and the command that shows it."""


class ExitCode(IntEnum):
    """The exit code of the process (`run` exits with its child's code instead)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CANNOT = 3
    """This machine cannot do it: privilege, kernel, a missing tool."""


class MitmError(Exception):
    """The base of all errors: a message of one line, and a hint."""

    exit_code: int = ExitCode.FAILED
    excerpt: tuple[str, ...] = ()
    """Printable lines between the message and the hint: what the message is about."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MitmError):
    """The options contradict each other or name something that does not exist."""

    exit_code = ExitCode.USAGE


class MachineError(MitmError):
    """This machine cannot do it: no privilege, no nft, a kernel without a module."""

    exit_code = ExitCode.CANNOT


class CertificateError(MitmError):
    """A certificate authority or a certificate that cannot be used or made."""


class CaptureError(MitmError):
    """A capture file that cannot be read further; the message names the file and the offset."""


class ProtocolError(MitmError):
    """Bytes from the network that break their protocol. The only error that bytes can cause."""


def cannot_read(kind: type[MitmError], file: str | os.PathLike[str], error: OSError) -> MitmError:
    """The error, of this kind, for a file that the user has named. What the machine lacks to read
    it is no wrong usage."""
    hint = limit_hint(error, f"ls -l {shlex.quote(os.fspath(file))}")
    if kind is UsageError and error.errno in LIMITS:
        kind = MachineError
    return kind(f"cannot read {os.fspath(file)}: {error.strerror}", hint=hint)


def limit_hint(error: OSError, otherwise: str = "sudo dmesg | tail") -> str:
    """The command that shows the limit that has caused an error; `otherwise` if it was none."""
    return LIMITS.get(error.errno or 0, otherwise)
