"""From what the table shows to lines of a given size: a pure function.

    mitml4 intercepts eth0                                     QUIC refused: 12
    CA mitml4 CA of laptop (2026-01-02)
        # server                stack                  ↑     ↓  last
    ●   1 www.example:443       socks5 › tls › http/2   1.2k  34M  200 GET /
    ✗   2 pinned.example:443    tls                      517  4.0k  client: unknown_ca
    1 open of 2 flows   ↑ 1.7k ↓ 34M                          q quit  p pause  ↑↓ scroll

A line is a list of cells, each exactly as wide as it says, whatever script its text is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from mitml4.printable import printable
from mitml4.sinks.table.model import Row, State, TableModel

__all__ = ["Cell", "Line", "body_height", "fit", "fit_end", "render", "short_size"]


class Cell(NamedTuple):
    """Text, padded or cut to its width, and the name of its style."""

    text: str
    style: str = ""


Line = list[Cell]


class Column(NamedTuple):
    """How a column is headed, how wide it is at least, its share of what is left, and its text."""

    title: str
    width: int
    share: int
    cell: Callable[[Row, int], Cell]
    right: bool = False


_SYMBOLS: Final[dict[State, str]] = {"open": "●", "closed": "○", "failed": "✗", "blocked": "⊘"}
_GAP: Final = 2


def fit(text: str, width: int) -> str:
    """The text in exactly so many cells; its end is cut off where it does not fit."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def fit_end(text: str, width: int) -> str:
    """The same, but it is the beginning that is cut off: a host's domain says more."""
    if cell_len(text) <= width or width <= 0:
        return fit(text, width)
    start = len(text)
    room = width - 1
    while start and (needed := cell_len(text[start - 1])) <= room:
        room -= needed
        start -= 1
    return set_cell_size("…" + text[start:], width)


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


def _row_style(row: Row) -> str:
    if row.state == "open":
        return "passed" if row.passed_through else "open"
    return row.state


def _text_style(row: Row) -> str:
    return "closed" if row.state == "closed" else ""


def _number(row: Row, width: int) -> Cell:
    return Cell(f"{_SYMBOLS[row.state]}{row.flow:>{width - 1}}"[:width], _row_style(row))


def _server(row: Row, width: int) -> Cell:
    host = f"[{row.server}]" if ":" in row.server else row.server
    return Cell(fit_end(f"{host}:{row.port}", width), _text_style(row))


def _client(row: Row, width: int) -> Cell:
    return Cell(fit_end(row.client, width), _text_style(row))


def _stack(row: Row, width: int) -> Cell:
    layers = list(row.stack)
    while len(layers) > 1 and cell_len(" › ".join(layers)) > width:
        layers = ["…", *layers[2 if layers[0] == "…" else 1 :]]
    return Cell(fit(" › ".join(layers), width), _row_style(row))


def _up(row: Row, width: int) -> Cell:
    return Cell(short_size(row.up).rjust(width), _text_style(row))


def _down(row: Row, width: int) -> Cell:
    return Cell(short_size(row.down).rjust(width), _text_style(row))


def _rate(row: Row, width: int) -> Cell:
    return Cell((f"{short_size(row.rate)}/s" if row.rate else "").rjust(width), _text_style(row))


def _info(row: Row, width: int) -> Cell:
    style = "failed" if row.state in ("failed", "blocked") else _text_style(row)
    return Cell(fit(row.info, width), style)


_NUMBER: Final = Column("#", 6, 0, _number, right=True)
_SERVER: Final = Column("server", 18, 1, _server)
_CLIENT: Final = Column("client", 15, 1, _client)
_WIDE_STACK: Final = Column("stack", 26, 4, _stack)
_STACK: Final = Column("stack", 19, 4, _stack)
_SHORT_STACK: Final = Column("stack", 12, 3, _stack)
_UP: Final = Column("↑", 4, 0, _up, right=True)
_DOWN: Final = Column("↓", 4, 0, _down, right=True)
_RATE: Final = Column("rate", 6, 0, _rate, right=True)
_INFO: Final = Column("last", 12, 2, _info)

# The first whose least width fits is used: what matters least goes first.
_LAYOUTS: Final = (
    (118, (_NUMBER, _SERVER, _CLIENT, _WIDE_STACK, _UP, _DOWN, _RATE, _INFO)),
    (92, (_NUMBER, _SERVER, _WIDE_STACK, _UP, _DOWN, _RATE, _INFO)),
    (72, (_NUMBER, _SERVER, _STACK, _UP, _DOWN, _INFO)),
    (52, (_NUMBER, _SERVER, _SHORT_STACK, _DOWN)),
    (0, (_NUMBER, _SERVER, _SHORT_STACK)),
)


def body_height(height: int) -> int:
    """How many flows a window of this height shows."""
    return max(0, height - len(_frame(height)) - 1)


def _frame(height: int) -> tuple[str, ...]:
    """The lines above the flows; a low window has fewer."""
    if height >= 8:
        return ("session", "authority", "titles")
    return ("titles",) if height >= 3 else ()


def render(
    model: TableModel,
    rows: list[Row],
    width: int,
    height: int,
    *,
    paused: bool = False,
    keyboard: bool = True,
) -> list[Line]:
    """Exactly `height` lines of exactly `width` cells. `keyboard`: whether keys can be pressed."""
    columns = next(columns for least, columns in _LAYOUTS if width >= least)
    widths = _widths(columns, width)
    above = {
        "session": lambda: _session_line(model, width),
        "authority": lambda: _authority_line(model, width),
        "titles": lambda: _titles(columns, widths),
    }
    lines = [above[name]() for name in _frame(height)]
    lines += [_row(row, columns, widths) for row in rows]
    if not rows and body_height(height):
        lines.append([Cell(_waiting(model), "closed")])
    lines += [[] for _ in range(height - 1 - len(lines))]
    lines.append(_footer(model, width, _keys(model, paused=paused, keyboard=keyboard)))
    return [_exactly(line, width) for line in lines[-height:]]


def _widths(columns: Iterable[Column], width: int) -> list[int]:
    """Least widths, and what is left over in shares; the last column takes the rest."""
    columns = list(columns)
    left = width - sum(column.width for column in columns) - _GAP * (len(columns) - 1)
    shares = sum(column.share for column in columns)
    widths = [column.width + max(0, left) * column.share // shares for column in columns]
    widths[-1] += max(0, width - sum(widths) - _GAP * (len(columns) - 1))
    return widths


def _titles(columns: Iterable[Column], widths: list[int]) -> Line:
    line: Line = []
    for column, width in zip(columns, widths, strict=True):
        title = column.title.rjust(width) if column.right else column.title.ljust(width)
        line += [Cell(title, "title"), Cell(" " * _GAP, "title")]
    return line[:-1]


def _row(row: Row, columns: Iterable[Column], widths: list[int]) -> Line:
    line: Line = []
    for column, width in zip(columns, widths, strict=True):
        line += [column.cell(row, width), Cell(" " * _GAP)]
    return line[:-1]


def _session_line(model: TableModel, width: int) -> Line:
    if model.session is None:
        return [Cell("mitml4", "name"), Cell(" is starting")]
    right = f"QUIC refused: {model.quic_blocked}" if model.quic_blocked else ""
    where = ", ".join(map(printable, model.session.interfaces)) or "one command"
    left = f" intercepts {where}"
    return [Cell("mitml4", "name"), *_both_ends(left, right, width - 6)]


def _authority_line(model: TableModel, width: int) -> Line:
    authority = model.session.ca if model.session else None
    name = printable(authority.subject.removeprefix("CN=")) if authority else ""
    parts = [f"CA {name}"] if name else []
    return [Cell(fit(" · ".join([*parts, *map(printable, model.notes)]), width), "closed")]


def _waiting(model: TableModel) -> str:
    return "  waiting for connections …" if model.session else ""


def _footer(model: TableModel, width: int, keys: str) -> Line:
    counts = f"{model.open} open of {model.flows} flows"
    moved = f"↑ {short_size(model.bytes_up)} ↓ {short_size(model.bytes_down)}"
    failed = f"{model.failed} failed" if model.failed else ""
    left = "   ".join(filter(None, (counts, moved, failed)))
    return [cell._replace(style="footer") for cell in _both_ends(left, keys, width)]


def _keys(model: TableModel, *, paused: bool, keyboard: bool) -> str:
    """What can be pressed now, and what it does."""
    if model.stopping:
        return f"ending   {'q' if keyboard else 'Ctrl-C'} at once"
    if not keyboard:
        return "Ctrl-C quit"
    return "paused   p go on   q quit" if paused else "q quit  p pause  ↑↓ scroll"


def _both_ends(left: str, right: str, width: int) -> Line:
    """Left and right in one line; what stands on the right gives way."""
    room = width - cell_len(left) - _GAP
    if cell_len(right) > room or not right:
        return [Cell(fit(left, width))]
    return [Cell(left), Cell(" " * (room + _GAP - cell_len(right))), Cell(right)]


def _exactly(line: Line, width: int) -> Line:
    """Cut or filled to the width of the window."""
    cells: Line = []
    for cell in line:
        taken = cell_len(cell.text)
        if taken > width:
            cells.append(cell._replace(text=set_cell_size(cell.text, width)))
            return cells
        cells.append(cell)
        width -= taken
    if width:
        cells.append(Cell(" " * width))
    return cells
