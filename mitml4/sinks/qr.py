"""QR codes as text: two modules in one character, so that they are square on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

__all__ = ["qr_lines"]

_QUIET_ZONE: Final = 2
"""Modules of light around it. ISO/IEC 18004 asks for four; readers take two."""
_BLOCKS: Final = {(0, 0): " ", (0, 1): "▄", (1, 0): "▀", (1, 1): "█"}
"""By the dark modules above and below."""


def qr_lines(text: str) -> list[str]:
    """The lines of its code, of the same width. They are to be shown as black on white."""
    return list(_lines(text))


def _lines(text: str) -> Iterator[str]:
    import segno  # imported late: few need it

    # A given mask saves the comparison of all eight, which takes most of the time.
    code = segno.make_qr(text, error="m", mask=2)
    rows = [list(map(bool, row)) for row in code.matrix_iter(border=_QUIET_ZONE)]
    for above, below in zip_longest(rows[::2], rows[1::2], fillvalue=[False] * len(rows[0])):
        yield "".join(_BLOCKS[pair] for pair in zip(above, below, strict=True))
