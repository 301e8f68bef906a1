"""The kernel's settings, by their paths below /proc/sys."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mitml4.errors import MachineError

__all__ = ["read_sysctl", "write_sysctl"]

_DIRECTORY: Final = Path("/proc/sys")


def read_sysctl(name: str) -> str | None:
    """What it is set to; None where this kernel, or this network, has no such setting."""
    try:
        return (_DIRECTORY / name).read_text().strip()
    except OSError:
        return None


def write_sysctl(name: str, value: str) -> None:
    """Nothing is written that is so already: in a container, /proc/sys may not be for writing.
    Nor what there is no such setting for.

    Raises MachineError.
    """
    if read_sysctl(name) in (None, value):
        return
    try:
        (_DIRECTORY / name).write_text(value)
    except OSError as error:
        raise MachineError(f"cannot set {name}: {error.strerror}") from error
