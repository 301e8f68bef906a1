"""The C library, for system calls that Python 3.11 lacks."""

from __future__ import annotations

import ctypes
import os
from typing import Final

__all__ = ["checked", "libc", "prctl"]

libc: Final = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """The result of a function of `libc`. Raises OSError if it reports an error."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), which takes four arguments after the option. Raises OSError."""
    padded = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return checked(libc.prctl(option, *padded))
