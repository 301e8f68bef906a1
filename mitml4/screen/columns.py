"""Text in columns: the width of each column, and text cut to fit.

Columns have a rank. The first in rank get the width that their text needs first; the last in rank
are left out if there is no room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size

__all__ = [
    "GAP",
    "fit",
    "fit_end",
    "fit_middle",
    "fit_stack",
    "join_stack",
    "share_out",
    "short_size",
]

GAP: Final = 2
"""Cells between two columns."""
_ESSENTIAL: Final = 3


def share_out(
    wanted: Sequence[int], least: Sequence[int], rank: Sequence[int], width: int
) -> list[int]:
    """The width of each column in cells; 0: left out.

    `wanted` is the width of a column's widest text, `least` the least width at which it is useful.
    `rank` lists the columns' indexes, the most important first. The first three are made narrower
    before they are left out.
    """
    widths = [0] * len(wanted)
    left = width
    usual = [min(pair) for pair in zip(wanted, least, strict=True)]
    narrow = {column: usual[column] * 2 // 3 for column in rank[:_ESSENTIAL]}
    narrow[rank[0]] = min(narrow[rank[0]], width)
    for sizes in (narrow, dict(enumerate(usual))):
        for column in rank[: len(sizes)]:
            gap = 0 if widths[column] or left == width else GAP
            more = sizes[column] - widths[column] + gap
            if more <= left:
                widths[column] += more - gap
                left -= more
            elif widths[column]:
                widths[column], left = widths[column] + left, 0
    for most in ([size * 3 // 2 for size in least], wanted):
        for column in rank:
            more = min(left, min(most[column], wanted[column]) - widths[column])
            if widths[column] and more > 0:
                widths[column] += more
                left -= more
    return widths


def fit(text: str, width: int) -> str:
    """The text in exactly this many cells, its end cut off if it does not fit."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def fit_end(text: str, width: int) -> str:
    """Like `fit`, but the beginning is cut off: the end of a host name is more important."""
    if cell_len(text) <= width or width <= 0:
        return fit(text, width)
    return set_cell_size("…" + _last_cells(text, width - 1), width)


def fit_middle(text: str, width: int) -> str:
    """Like `fit`, but the middle is left out: an address ends with its port."""
    if cell_len(text) <= width or width <= 2:
        return fit(text, width)
    end = _last_cells(text, (width - 1) // 2)
    return fit(set_cell_size(text, width - 1 - cell_len(end)) + "…" + end, width)


def _last_cells(text: str, room: int) -> str:
    start = len(text)
    while start and (needed := cell_len(text[start - 1])) <= room:
        room -= needed
        start -= 1
    return text[start:]


def fit_stack(stack: Sequence[str], width: int) -> str:
    """The layers of a flow; if they do not fit, the outermost are left out."""
    layers = list(stack)
    while len(layers) > 1 and cell_len(join_stack(layers)) > width:
        layers = ["…", *layers[2 if layers[0] == "…" else 1 :]]
    return fit(join_stack(layers), width)


def join_stack(stack: Sequence[str]) -> str:
    """The layers of a flow in one line; a dash where no byte was exchanged."""
    return " › ".join(stack) or "–"


def short_size(count: float) -> str:
    """A number of bytes in at most four characters: `999`, `1.2k`, `34M`."""
    if count < 1000:
        return f"{count:.0f}"
    for unit in "kMGTP":
        count /= 1000
        if count < 9.95:
            return f"{count:.1f}{unit}"
        if count < 999.5:
            return f"{count:.0f}{unit}"
    return "lots"
