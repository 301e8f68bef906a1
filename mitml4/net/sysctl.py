"""The kernel's settings, named by their paths below /proc/sys."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mitml4.errors import MachineError

__all__ = ["read_sysctl", "write_sysctl"]

_DIRECTORY: Final = Path("/proc/sys")


def read_sysctl(name: str) -> str | None:
    """The value; None if this kernel, or this network namespace, has no such setting."""
    try:
        return (_DIRECTORY / name).read_text().strip()
    except OSError:
        return None


def write_sysctl(name: str, value: str) -> None:
    """Set a value. If it is already set, nothing is written: in a container, /proc/sys may be
    read-only. A setting that does not exist is ignored.

    Raises MachineError.
    """
    if read_sysctl(name) in (None, value):
        return
    try:
        (_DIRECTORY / name).write_text(value)
    except OSError as error:
        hint = f"ls -l {_DIRECTORY / name}"
        raise MachineError(f"cannot set {name}: {error.strerror}", hint=hint) from error
