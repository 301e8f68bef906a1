"""Draws on a terminal's alternate screen, and restores the terminal afterwards.

Only lines that have changed are drawn, in a synchronized update, so that nothing flickers. Each
cell is positioned explicitly, so that a terminal that takes a character for wider or narrower does
not shift the cells beside it.
"""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from collections.abc import Mapping
from threading import Lock
from typing import Final, Literal, NamedTuple

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from mitml4.whole_writes import write_all

__all__ = ["STYLES", "Canvas", "Cell", "Line", "color_system_for"]


class Cell(NamedTuple):
    """Text, padded or cut to its width, and its style's name."""

    text: str
    style: str = ""


Line = list[Cell]

STYLES: Final = {
    "": Style.null(),
    "name": Style(bold=True),
    "title": Style(reverse=True),
    "footer": Style(reverse=True),
    "open": Style(color="green"),
    "passed": Style(color="yellow"),
    "closed": Style(dim=True),
    "failed": Style(color="red"),
    "blocked": Style(color="magenta"),
    "selected": Style(reverse=True),
    "qr": Style(color="black", bgcolor="bright_white"),
}
"""The styles of the table's cells, by name."""

# xterm's control sequences: alternate screen, cursor, autowrap; and the synchronized update.
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE: Final = "\x1b[?2026l\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
_CLEAR: Final = "\x1b[2J"


def color_system_for(color: Literal["auto", "always", "never"]) -> ColorSystem | None:
    """The colours of the terminal on standard output; None: use no styles."""
    console = Console(file=sys.stdout, force_terminal=True)
    if color == "never" or (color == "auto" and console.no_color):
        return None
    return {
        "256": ColorSystem.EIGHT_BIT,
        "truecolor": ColorSystem.TRUECOLOR,
    }.get(console.color_system or "", ColorSystem.STANDARD)


class Canvas:
    """The alternate screen of a terminal. Its methods block while the terminal does."""

    def __init__(
        self, descriptor: int, styles: Mapping[str, Style], color_system: ColorSystem | None
    ) -> None:
        self._descriptor = descriptor
        self._styles = styles
        self._color_system = color_system
        self._size = (0, 0)
        self._shown: list[str] = []
        self._pending = ""
        """A control sequence that the next frame carries."""
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
        """Restore the screen. A frame that another thread is still preparing is not shown."""
        self._is_left = True
        with self._writing:
            write_all(self._descriptor, _LEAVE.encode())

    def copy(self, text: str) -> None:
        """Copy a text to the terminal's clipboard, with the next frame: OSC 52, which also works
        over ssh."""
        encoded = b64encode(text.encode("utf-8", "backslashreplace")).decode()
        self._pending += f"\x1b]52;c;{encoded}\x07"

    def draw(self, lines: list[Line], size: tuple[int, int]) -> None:
        """Show lines that were rendered for this size. Writes only what has changed."""
        codes = [self._codes(line) for line in lines]
        out = [_CLEAR] if size != self._size else []
        known = self._shown if size == self._size else []
        for number, code in enumerate(codes):
            if number >= len(known) or known[number] != code:
                out.append(f"\x1b[{number + 1};1H{code}")
        pending, self._pending = self._pending, ""
        if out or pending:
            self._write("".join([pending, _BEGIN, *out, _END]))
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
