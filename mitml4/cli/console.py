"""The command line's output: data on standard output, messages on standard error.

An error has this form:

error: there is no interface 'eht0'
hint: --iface NAME, one of: eth0, lo
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Final, TextIO

from mitml4.dataclass import dataclass
from mitml4.errors import MitmError
from mitml4.printable import printable
from mitml4.screen.terminal import Color, wants_color

__all__ = ["Console", "is_terminal_free", "let_go_of_stdout"]

_RED: Final = "\x1b[1;31m"
_CYAN: Final = "\x1b[36m"
_RESET: Final = "\x1b[0m"


@dataclass(slots=True)
class Console:
    """Prints as the global options say."""

    verbosity: int = 0
    """-1: only errors; 1 and 2: the developers' log as well."""
    has_tracebacks: bool = False
    """Whatever a command's own -q says."""
    color: Color = "auto"

    def say(self, text: str) -> None:
        """Print a message that is neither data nor an error, unless -q is given."""
        if self.verbosity >= 0:
            self._write(text)

    def error(self, error: MitmError) -> None:
        """Print the error, its excerpt if there is one, and its hint on the last line."""
        self._write(f"{self._styled('error:', _RED)} {printable(error.message)}")
        for line in error.excerpt:
            self._write(line)
        if error.hint:
            self._write(f"{self._styled('hint:', _CYAN)} {printable(error.hint)}")

    def help(self, text: str) -> None:
        """Print the help of a command that was called without arguments."""
        self._write(text)

    def traceback(self, error: BaseException) -> None:
        """Print the traceback, with -vv only."""
        if self.has_tracebacks:
            self._write("".join(traceback.format_exception(error)).rstrip())

    @staticmethod
    def data(text: str) -> None:
        """Write the output to standard output, and flush it. Raises OSError, MitmError."""
        stream: TextIO | None = sys.stdout
        if stream:
            if text:  # a full device refuses to write no bytes, too
                stream.write(text)
            stream.flush()
        elif text:  # the calling process has closed it
            raise MitmError("standard output is closed", hint="the output goes there")

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_RESET}" if wants_color(self.color, sys.stderr) else text

    @staticmethod
    def _write(text: str) -> None:
        # If standard error is gone, there is nowhere to report that.
        with contextlib.suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def is_terminal_free() -> bool:
    """Whether there is a terminal, and standard output and standard error are both redirected."""
    if sys.stdout.isatty() or sys.stderr.isatty():
        return False
    try:
        os.close(os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def let_go_of_stdout() -> None:
    """Discard what is still buffered: the interpreter would try to write it at exit, and report
    the error again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
