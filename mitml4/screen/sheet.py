"""A table with a line for each flow, for any width.

#  client           server           stack              details      ↑     ↓     s
1  192.0.2.1:40000  www.example:443  socks5 › tls       TLSv1.3   1.2k   34M  0.31
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from rich.cells import cell_len

from mitml4.screen.columns import (
    GAP,
    fit,
    fit_middle,
    fit_stack,
    join_stack,
    share_out,
    short_size,
)

__all__ = ["SheetRow", "sheet"]


class SheetRow(NamedTuple):
    """One flow. A field that is None in all rows has no column. Text must be printable."""

    flow: int
    server: str
    stack: tuple[str, ...]
    summary: str
    up: int
    down: int
    side: str | None = None
    client: str | None = None
    duration_s: float | None = None
    style: str = ""


_Fit: TypeAlias = Callable[[Any, int], str]


class _Column(NamedTuple):
    title: str
    value: Callable[[SheetRow], Any]
    least: int
    rank: int
    fit: _Fit = fit
    right: bool = False
    text: Callable[[Any], str] = str


def _duration(value: float) -> str:
    """Seconds in at most four characters: `0.31`, `12.3`, `375`, `86k`."""
    if value < 99.95:
        return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
    return short_size(value)


_COLUMNS: Final = (
    _Column("#", lambda row: str(row.flow), 8, 2, right=True),
    _Column("side", lambda row: row.side, 8, 3, text=lambda value: value or ""),
    _Column("client", lambda row: row.client, 13, 6, fit_middle),
    _Column("server", lambda row: row.server, 18, 1, fit_middle),
    _Column("stack", lambda row: row.stack, 40, 0, fit_stack, text=join_stack),
    _Column("details", lambda row: row.summary, 12, 7),
    _Column("↑", lambda row: short_size(row.up), 4, 5, right=True),
    _Column("↓", lambda row: short_size(row.down), 4, 4, right=True),
    _Column("s", lambda row: row.duration_s, 4, 8, right=True, text=_duration),
)


def sheet(rows: Sequence[SheetRow], width: int) -> Iterator[tuple[str, str]]:
    """The titles and a line for each row, within the width, with the names of their styles."""
    columns = [
        column
        for column in _COLUMNS
        if not rows or any(column.value(row) is not None for row in rows)
    ]
    texts = [[column.text(column.value(row)) for row in rows] for column in columns]
    wanted = [
        max(cell_len(column.title), *map(cell_len, cells), 0)
        for column, cells in zip(columns, texts, strict=True)
    ]
    rank = sorted(range(len(columns)), key=lambda index: columns[index].rank)
    widths = share_out(wanted, [column.least for column in columns], rank, width)
    shown = [(column, cells) for column, cells in zip(columns, widths, strict=True) if cells]
    yield _line([_cell(column.title, cells, fit, column.right) for column, cells in shown]), "bold"
    for row in rows:
        yield _line([_value(column, row, cells) for column, cells in shown]), row.style


def _value(column: _Column, row: SheetRow, width: int) -> str:
    value = column.value(row)
    shown = value if column.fit is fit_stack else column.text(value)
    return _cell(shown, width, column.fit, column.right)


def _cell(value: Any, width: int, how: _Fit, right: bool) -> str:
    text = how(value, width)
    return text.rstrip().rjust(width) if right else text


def _line(cells: Sequence[str]) -> str:
    return (" " * GAP).join(cells).rstrip()
