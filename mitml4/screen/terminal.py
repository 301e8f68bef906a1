"""Properties of an output stream: whether it is a terminal, its width, its use of colours. And what
takes the place of standard streams that are closed."""

from __future__ import annotations

import os
import sys
from typing import Final, Literal, TextIO, TypeAlias

__all__ = ["Color", "is_terminal", "occupy_standard_descriptors", "wants_color", "width_of"]

Color: TypeAlias = Literal["auto", "always", "never"]
"""The option --color."""

_DUMB: Final = (None, "", "dumb")
"""Values of TERM that tell of no escape sequences."""
_STANDARD_ERROR: Final = 2
_WIDE: Final = 160
"""The width of a table if the output is not a terminal."""


def is_terminal(stream: TextIO | None) -> bool:
    """Whether it is a terminal that supports escape sequences; None: a closed stream."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") not in _DUMB


def wants_color(color: Color, stream: TextIO | None) -> bool:
    """Whether to write colours to a stream (https://no-color.org)."""
    if color == "auto":
        return is_terminal(stream) and not os.environ.get("NO_COLOR")
    return color == "always"


def width_of(stream: TextIO | None) -> int:
    """The number of columns of a stream's terminal; the variable COLUMNS takes precedence."""
    try:
        columns = int(os.environ.get("COLUMNS", "0"))
    except ValueError:
        columns = 0
    try:
        return columns or os.get_terminal_size(stream.fileno() if stream else -1).columns or _WIDE
    except (OSError, ValueError):
        return _WIDE


def occupy_standard_descriptors() -> None:
    """Open /dev/null in place of standard descriptors that the caller has closed, so that no other
    file gets their numbers. A command that is run still finds them closed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    sys.stderr = sys.stderr or os.fdopen(_STANDARD_ERROR, "w", closefd=False)
