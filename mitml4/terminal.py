"""What a stream shows a person: is it a terminal, how wide is it, does it take colours?"""

from __future__ import annotations

import os
from typing import Final, Literal, TextIO, TypeAlias

__all__ = ["Color", "is_terminal", "wants_color", "width_of"]

Color: TypeAlias = Literal["auto", "always", "never"]
"""The option --color."""

_WIDE: Final = 160
"""Columns of a table that no terminal shows."""


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at it through something that knows escape sequences; None: closed."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def wants_color(color: Color, stream: TextIO | None) -> bool:
    """Whether to write colours to a stream (https://no-color.org)."""
    if color == "auto":
        return is_terminal(stream) and not os.environ.get("NO_COLOR")
    return color == "always"


def width_of(stream: TextIO | None) -> int:
    """Columns of the terminal that a stream is; COLUMNS goes before, as everywhere."""
    try:
        columns = int(os.environ.get("COLUMNS", "0"))
    except ValueError:
        columns = 0
    try:
        return columns or os.get_terminal_size(stream.fileno() if stream else -1).columns or _WIDE
    except (OSError, ValueError):
        return _WIDE
