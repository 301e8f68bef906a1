"""The keys of a terminal, one by one; the terminal is as it was before, afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
from collections.abc import Iterator
from typing import Final

__all__ = ["keyboard", "keys_in"]

_KEY: Final = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_IFLAG, _LFLAG, _CC = 0, 3, 6  # indexes of tcgetattr's list


@contextlib.contextmanager
def keyboard() -> Iterator[int | None]:
    """Standard input with keys as they are pressed and not shown; None where there is no keyboard.

    Ctrl-C is not changed. Ctrl-Z does nothing (a proxy that is stopped holds every flow up), nor
    does Ctrl-S (a terminal that is stopped cannot be given back). Keys that were pressed before can
    be read, too. Uses may be nested.
    """
    descriptor = sys.stdin.fileno() if sys.stdin and not sys.stdin.closed else -1
    if not _in_foreground(descriptor):
        yield None
        return
    before = termios.tcgetattr(descriptor)
    attributes = termios.tcgetattr(descriptor)
    attributes[_IFLAG] &= ~termios.IXON
    attributes[_LFLAG] &= ~(termios.ICANON | termios.ECHO)
    attributes[_CC][termios.VSUSP] = b"\x00"
    attributes[_CC][termios.VMIN] = 1
    attributes[_CC][termios.VTIME] = 0
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
    try:
        yield descriptor
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)


def _in_foreground(descriptor: int) -> bool:
    """Whether it is the terminal that we may read from: in the background we would be stopped."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def keys_in(data: bytes) -> list[bytes]:
    """One key press each: a byte, or an escape sequence."""
    return _KEY.findall(data)
