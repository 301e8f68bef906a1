"""Single key presses of a terminal, whose settings are restored afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
from collections.abc import Iterator
from typing import Final

from mitml4.regex import regex

__all__ = [
    "BACK",
    "DOWN",
    "ENTER",
    "ERASE",
    "ERASE_ALL",
    "ERASE_WORD",
    "FIRST",
    "KEY_TIMEOUT_S",
    "LAST",
    "PAGE_DOWN",
    "PAGE_UP",
    "RETURN",
    "UP",
    "Keys",
    "has_keyboard",
    "keyboard",
    "keys_in",
]

UP: Final = {b"\x1b[A", b"\x1bOA", b"k"}
DOWN: Final = {b"\x1b[B", b"\x1bOB", b"j"}
PAGE_UP: Final = {b"\x1b[5~"}
PAGE_DOWN: Final = {b"\x1b[6~"}
FIRST: Final = {b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"g"}
LAST: Final = {b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"G"}
RETURN: Final = {b"\r", b"\n"}
ENTER: Final = {*RETURN, b"\x1b[C", b"\x1bOC", b"l"}
BACK: Final = {b"\x1b", b"\x1b[D", b"\x1bOD", b"h"}
ERASE: Final = {b"\x7f", b"\x08"}
ERASE_WORD: Final = {b"\x17"}
ERASE_ALL: Final = {b"\x15"}
"""Ctrl-W and Ctrl-U, as in a shell."""

_KEY: Final = regex(
    rb"\x1b[\[O][0-9;]*[A-Za-z~]"  # an escape sequence
    rb"|[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"  # UTF-8
    rb"|.",
    re.DOTALL,
)
_PARTIAL: Final = regex(
    rb"(?:\x1b(?:[\[O][0-9;]*)?"
    rb"|[\xc2-\xf4]|[\xe0-\xf4][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})\Z"
)
"""The beginning of a key, at the end of what was read."""
KEY_TIMEOUT_S: Final = 0.05
"""A longer pause ends a key. Over a slow connection, a sequence may arrive in parts."""
_IFLAG, _LFLAG, _CC = 0, 3, 6  # indexes of tcgetattr's list


@contextlib.contextmanager
def keyboard(terminal: int | None = None) -> Iterator[int | None]:
    """Standard input, or this descriptor, in a mode in which keys arrive as they are pressed and
    are not echoed; None without a keyboard.

    Ctrl-C is not changed. Ctrl-Z has no effect (a stopped proxy would block every flow), nor has
    Ctrl-S (the settings of a stopped terminal cannot be restored). Keys that were pressed before
    can be read, too. Uses may be nested.
    """
    descriptor = _standard_input() if terminal is None else terminal
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


def has_keyboard(terminal: int | None = None) -> bool:
    """Whether `keyboard` gives one."""
    return _in_foreground(_standard_input() if terminal is None else terminal)


def _standard_input() -> int:
    return sys.stdin.fileno() if sys.stdin and not sys.stdin.closed else -1


def _in_foreground(descriptor: int) -> bool:
    """Whether we may read from the terminal: in the background, reading would stop us."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


class Keys:
    """Makes key presses of what is read, in which a key may be split between two reads."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def is_partial(self) -> bool:
        """Whether the last key may go on. If it does not within KEY_TIMEOUT_S, feed nothing."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The complete keys: each is a character or an escape sequence. Without data, what is
        left of one is a key, such as Esc."""
        whole = self._rest + data
        partial = _PARTIAL.search(whole) if data else None
        end = partial.start() if partial else len(whole)
        self._rest = whole[end:]
        return keys_in(whole[:end])


def keys_in(data: bytes) -> list[bytes]:
    """The key presses in `data`: each is a character in UTF-8, or an escape sequence."""
    return _KEY.findall(data)
