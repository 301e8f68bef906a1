"""What the command line says: data on standard output, talk on standard error, errors in one form.

error: there is no interface 'eht0'
hint: --iface NAME, one of: eth0, lo
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from dataclasses import dataclass
from typing import Final, TextIO

from mitml4.errors import MitmError
from mitml4.printable import printable
from mitml4.terminal import Color, wants_color

__all__ = ["Console", "is_terminal_free", "let_go_of_stdout"]

_RED: Final = "\x1b[1;31m"
_CYAN: Final = "\x1b[36m"
_RESET: Final = "\x1b[0m"


@dataclass(slots=True)
class Console:
    """The global options, and the voice that follows them."""

    verbosity: int = 0
    """-1: only errors; 1 and 2: the developers' log as well, 2 with tracebacks."""
    color: Color = "auto"

    def say(self, text: str) -> None:
        """Tell the user something that is no data and no error, unless they asked for quiet."""
        if self.verbosity >= 0:
            self._write(text)

    def error(self, error: MitmError) -> None:
        """One line for what went wrong, one for what to do next."""
        self._write(f"{self._styled('error:', _RED)} {printable(error.message)}")
        if error.hint:
            self._write(f"{self._styled('hint:', _CYAN)} {printable(error.hint)}")

    def help(self, text: str) -> None:
        """How a command is used, for someone who gave it nothing to do."""
        self._write(text)

    def traceback(self, error: BaseException) -> None:
        """For developers: with -vv only."""
        if self.verbosity >= 2:
            self._write("".join(traceback.format_exception(error)).rstrip())

    @staticmethod
    def data(text: str) -> None:
        """Write what was asked for to standard output, at once. Raises OSError, MitmError."""
        stream: TextIO | None = sys.stdout
        if stream:
            stream.write(text)
            stream.flush()
        elif text:  # whoever started us has closed it
            raise MitmError("standard output is closed", hint="what was asked for goes there")

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_RESET}" if wants_color(self.color, sys.stderr) else text

    @staticmethod
    def _write(text: str) -> None:
        # Nobody is left to be told that nobody listens.
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def is_terminal_free() -> bool:
    """Whether there is a terminal to which neither standard output nor standard error goes."""
    if sys.stdout.isatty() or sys.stderr.isatty():
        return False
    try:
        os.close(os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def let_go_of_stdout() -> None:
    """What is still buffered goes nowhere: the interpreter would try to write it at its exit, and
    complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
