"""Text in columns: how wide each column is, and how text is made to fit.

Columns have a rank. Those that rank first are shown first and get the room that their text wants
first; what ranks last is left out where there is no room for it.
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
    """How wide each column is, in cells; 0: left out.

    `wanted` is the width of a column's widest text, `least` the width that it takes to say much.
    `rank` lists the columns' indexes, the most important first; the first three are made narrower
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
    """The text in exactly so many cells; its end is cut off where it does not fit."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def fit_end(text: str, width: int) -> str:
    """The same, but it is the beginning that is cut off: a host's domain says more."""
    if cell_len(text) <= width or width <= 0:
        return fit(text, width)
    return set_cell_size("…" + _last_cells(text, width - 1), width)


def fit_middle(text: str, width: int) -> str:
    """The same, but the middle is left out: an address ends in its port."""
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
    """The layers of a flow; where they do not fit, the outermost are left out first."""
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
