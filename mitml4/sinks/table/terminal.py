"""A terminal to draw a window on, and to read single keys from; as it was before, afterwards.

Frames are drawn on the alternate screen, line by line and only where they changed, within a
synchronized update, so that nothing flickers. Every cell is put at its column by name: a terminal
that is of another mind on how wide a character is cannot shift what stands beside it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Final, Literal

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from mitml4.sinks.files import write_all
from mitml4.sinks.table.view import Line

__all__ = ["Canvas", "color_system_for", "keyboard", "keys_in"]

# xterm's control sequences: alternate screen, cursor, autowrap; and the synchronized update.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE: Final = "\x1b[?2026l\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
_CLEAR: Final = "\x1b[2J"

_KEY: Final = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)
_IFLAG, _LFLAG, _CC = 0, 3, 6  # indexes of tcgetattr's list


def color_system_for(color: Literal["auto", "always", "never"]) -> ColorSystem | None:
    """The colours that the terminal on standard output has; None: use no style at all."""
    console = Console(file=sys.stdout, force_terminal=True)
    if color == "never" or (color == "auto" and console.no_color):
        return None
    return {
        "256": ColorSystem.EIGHT_BIT,
        "truecolor": ColorSystem.TRUECOLOR,
    }.get(console.color_system or "", ColorSystem.STANDARD)


class Canvas:
    """The alternate screen of a terminal. Its methods block as long as the terminal does."""

    def __init__(
        self, descriptor: int, styles: Mapping[str, Style], color_system: ColorSystem | None
    ) -> None:
        self._descriptor = descriptor
        self._styles = styles
        self._color_system = color_system
        self._size = (0, 0)
        self._shown: list[str] = []
        self._writing = Lock()
        self._is_left = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._descriptor)
        except OSError:
            return 80, 24
        return columns or 80, lines or 24

    def enter(self) -> None:
        self._write(_ENTER)

    def leave(self) -> None:
        """A picture that is still being made, in another thread, is not shown any more."""
        self._is_left = True
        with self._writing:
            write_all(self._descriptor, _LEAVE.encode())

    def draw(self, lines: list[Line], size: tuple[int, int]) -> None:
        """Show these lines, which were made for this size. Writes what has changed, or nothing."""
        codes = [self._codes(line) for line in lines]
        out = [_CLEAR] if size != self._size else []
        known = self._shown if size == self._size else []
        for number, code in enumerate(codes):
            if number >= len(known) or known[number] != code:
                out.append(f"\x1b[{number + 1};1H{code}")
        if out:
            self._write("".join([_BEGIN, *out, _END]))
        self._shown, self._size = codes, size

    def _codes(self, line: Line) -> str:
        codes = []
        column = 1
        for text, style in line:
            styled = self._styles[style].render(text, color_system=self._color_system)
            codes.append(f"\x1b[{column}G{styled}")
            column += cell_len(text)
        return "".join(codes)

    def _write(self, text: str) -> None:
        with self._writing:
            if not self._is_left:
                write_all(self._descriptor, text.encode())


@contextlib.contextmanager
def keyboard() -> Iterator[int | None]:
    """Standard input with keys as they are pressed and not shown; None where there is no keyboard.

    Ctrl-C stays what it is. Ctrl-Z does nothing (a proxy that is stopped holds every flow up), nor
    does Ctrl-S (a terminal that is stopped cannot be given back).
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
