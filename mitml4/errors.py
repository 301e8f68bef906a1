"""Every error that mitml4 raises on purpose, each with its exit code and a hint.

A hint is the next command to type (or the next thing to look at). The command line prints
``error: MESSAGE`` and ``hint: HINT`` and nothing else; a traceback means a bug of ours.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "CaptureError",
    "CertificateError",
    "ExitCode",
    "MachineError",
    "MitmError",
    "ProtocolError",
    "UsageError",
]


class ExitCode(IntEnum):
    """What the process answers with (`run` answers with its child's own code instead)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CANNOT = 3
    """This machine cannot: privilege, kernel, a missing tool."""


class MitmError(Exception):
    """The root of the tree: one line for people, and a hint."""

    exit_code: int = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MitmError):
    """The options contradict each other or name something that is not there."""

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
