"""Renders the model of the live table as lines of a given size: a pure function.

    mitml4 intercepts eth0                                     QUIC refused: 12
    CA mitml4 CA of laptop (2026-01-02 3f9c1a2b)
        # server                stack                  ↑     ↓  last
    ●   1 www.example:443       socks5 › tls › http/2   1.2k  34M  200 GET /
    ✗   2 pinned.example:443    tls                      517  4.0k  client: unknown_ca
    1 open of 2 flows   ↑ 1.7k ↓ 34M                          ? keys  q quit  Enter open

A line is a list of cells of exact widths, for text in any script.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from mitml4.printable import printable
from mitml4.protocols.conversation import Target
from mitml4.screen.canvas import Cell, Line
from mitml4.screen.columns import (
    GAP,
    fit,
    fit_end,
    fit_middle,
    fit_stack,
    share_out,
    short_size,
)
from mitml4.screen.keys import KEYS
from mitml4.screen.prompt import prompt_lines
from mitml4.sinks.table.authority import authority_lines
from mitml4.sinks.table.model import Row, State, TableModel

__all__ = ["Mode", "body_height", "help_page_count", "render"]


class Mode(NamedTuple):
    """The state that keys change."""

    keyboard: bool = True
    """Whether there is a keyboard."""
    paused: bool = False
    failures: bool = False
    """Only the flows that failed or were blocked are shown."""
    help_page: int | None = None
    """The page of the keys that is shown in place of the flows."""
    qr: Sequence[str] = ()
    """The QR code of the CA page, while that is shown in place of the flows."""
    selected: int | None = None
    """The flow that keys are about."""
    filter: str = ""
    unexamined: int = 0
    """Flows that have still to be compared with the filter."""
    typed: str | None = None
    """A filter that is being typed."""
    fault_at: int | None = None
    """The place of a fault in it, which `said` describes."""
    sort: str = ""
    said: str = ""
    """What the last key has done."""
    opened: bool = False
    """One flow is shown in place of all."""


class Column(NamedTuple):
    """A column: title, rank (0 is the most important), least and wanted width, and its text."""

    title: str
    rank: int
    least: int
    cell: Callable[[Row, int], Cell]
    wanted: Callable[[TableModel], int]
    right: bool = False


_SELECTED: Final = "›"
_SYMBOLS: Final[dict[State, str]] = {"open": "●", "closed": "○", "failed": "✗", "blocked": "⊘"}


def _row_style(row: Row) -> str:
    if row.state == "open":
        return "passed" if row.passed_through else "open"
    return row.state


def _text_style(row: Row) -> str:
    return "closed" if row.state == "closed" else ""


def _number(row: Row, width: int) -> Cell:
    return Cell(f"{_SYMBOLS[row.state]}{row.flow:>{width - 1}}"[:width], _row_style(row))


def _server(row: Row, width: int) -> Cell:
    return Cell(fit_end(str(Target(row.server, row.port)), width), _text_style(row))


def _client(row: Row, width: int) -> Cell:
    return Cell(fit_middle(row.client, width), _text_style(row))


def _process(row: Row, width: int) -> Cell:
    return Cell(fit(row.process, width), _text_style(row))


def _stack(row: Row, width: int) -> Cell:
    return Cell(fit_stack(row.stack, width) if row.stack else " " * width, _row_style(row))


def _up(row: Row, width: int) -> Cell:
    return Cell(short_size(row.up).rjust(width), _text_style(row))


def _down(row: Row, width: int) -> Cell:
    return Cell(short_size(row.down).rjust(width), _text_style(row))


def _rate(row: Row, width: int) -> Cell:
    return Cell((f"{short_size(row.rate)}/s" if row.rate else "").rjust(width), _text_style(row))


def _info(row: Row, width: int) -> Cell:
    style = "failed" if row.state in ("failed", "blocked") else _text_style(row)
    return Cell(fit(row.text, width), style)


def _fixed(width: int) -> Callable[[TableModel], int]:
    return lambda _model: width


_ALL: Final = 1 << 16
"""More than any window has: the last column gets the remaining width."""

_COLUMNS: Final = (
    Column("#", 0, 6, _number, _fixed(6), right=True),
    Column("server", 2, 18, _server, lambda model: max(18, model.widest_server)),
    Column("client", 7, 15, _client, lambda model: max(15, model.widest_client)),
    Column("stack", 1, 24, _stack, lambda model: max(12, model.widest_stack)),
    Column("process", 5, 8, _process, lambda model: max(8, model.widest_process)),
    Column("↑", 6, 4, _up, _fixed(4), right=True),
    Column("↓", 3, 4, _down, _fixed(4), right=True),
    Column("rate", 8, 6, _rate, _fixed(6), right=True),
    Column("last", 4, 16, _info, _fixed(_ALL)),
)
_OF_ONE_PROCESS: Final = tuple(column for column in _COLUMNS if column.cell is not _process)
_HELP_INDENT: Final = 22


def body_height(height: int) -> int:
    """The number of flows that a window of this height shows."""
    return max(0, height - len(_frame(height)) - 1)


def _frame(height: int) -> tuple[str, ...]:
    """The lines above the flows, fewer in a low window."""
    if height >= 8:
        return ("session", "authority", "titles")
    return ("titles",) if height >= 3 else ()


def render(
    model: TableModel,
    rows: list[Row],
    width: int,
    height: int,
    mode: Mode = Mode(),  # noqa: B008 - it is frozen
    body: Sequence[Line] | None = None,
) -> list[Line]:
    """Exactly `height` lines of exactly `width` cells. `body` stands in place of the titles and the
    rows."""
    possible = _COLUMNS if model.has_several_processes else _OF_ONE_PROCESS
    wanted = [column.wanted(model) for column in possible]
    rank = sorted(range(len(possible)), key=lambda index: possible[index].rank)
    shared = share_out(wanted, [column.least for column in possible], rank, width)
    columns = [column for column, cells in zip(possible, shared, strict=True) if cells]
    widths = [cells for cells in shared if cells]
    above = {
        "session": lambda: _session_line(model, width),
        "authority": lambda: _authority_line(model, width),
    }
    frame = _frame(height)
    lines = [above[name]() for name in frame if name != "titles"]
    if mode.help_page is not None:
        if frame:
            lines.append([Cell("keys", "title"), Cell(" " * width, "title")])
        shown = _help_pages(width, height)[mode.help_page :][:1]
        lines += [[Cell(text)] for page in shown for text in page]
    elif mode.qr:
        if frame:
            lines.append([Cell("certificate authority", "title"), Cell(" " * width, "title")])
        authority = model.session.ca if model.session else None
        pairs = authority_lines(authority, mode.qr, width, body_height(height))
        lines += [[Cell(text), Cell(code, "qr")] for text, code in pairs]
    elif body is not None:
        lines += body if frame else body[1:]
    else:
        if frame:
            lines.append(_titles(columns, widths))
        lines += [_row(row, columns, widths, row.flow == mode.selected) for row in rows]
        if not rows and body_height(height):
            lines.append([Cell(_nothing(model, mode), "closed")])
    lines += [[] for _ in range(height - 1 - len(lines))]
    if mode.typed is not None:
        texts = prompt_lines(mode.typed, mode.said, mode.fault_at, width)
        lines = [*lines[: height - len(texts)], *([Cell(text, "footer")] for text in texts)]
    elif mode.said:
        lines.append([Cell(printable(mode.said), "footer")])
    else:
        lines.append(_footer(model, width, _keys(model, mode), _chosen(mode)))
    return [_exactly(line, width) for line in lines[-height:]]


def help_page_count(width: int, height: int) -> int:
    """How many pages the keys take in a window of this size."""
    return len(_help_pages(width, height))


def _help_pages(width: int, height: int) -> list[list[str]]:
    """The keys and what they do, wrapped at the width, as many lines to a page as flows."""
    lines = [line for keys, what in KEYS for line in _help_lines(keys, what, width)]
    size = max(1, body_height(height))
    return [lines[start : start + size] for start in range(0, len(lines), size)]


def _help_lines(keys: str, what: str, width: int) -> list[str]:
    """One entry; in a narrow window the explanation stands below its keys."""
    indent = _HELP_INDENT if width >= 3 * _HELP_INDENT else 4
    texts = textwrap.wrap(what, max(1, width - indent), break_on_hyphens=False)
    first = f"  {keys:<{_HELP_INDENT - 2}}"
    if indent < _HELP_INDENT:
        return [first.rstrip(), *(" " * indent + text for text in texts)]
    return [first + texts[0], *(" " * indent + text for text in texts[1:])]


def _titles(columns: Iterable[Column], widths: list[int]) -> Line:
    line: Line = []
    for column, width in zip(columns, widths, strict=True):
        title = column.title.rjust(width) if column.right else column.title.ljust(width)
        line += [Cell(title, "title"), Cell(" " * GAP, "title")]
    return line[:-1]


def _row(row: Row, columns: Iterable[Column], widths: list[int], selected: bool) -> Line:
    line: Line = []
    for column, width in zip(columns, widths, strict=True):
        line += [column.cell(row, width), Cell(" " * GAP)]
    if not selected:
        return line[:-1]
    symbol, rest = line[0].text[:1], line[0].text[1:]
    # A number of five digits leaves no room beside the symbol.
    marked = symbol + _SELECTED + rest[1:] if rest.startswith(" ") else _SELECTED + rest
    line[0] = Cell(marked)
    return [cell._replace(style="selected") for cell in line]


def _session_line(model: TableModel, width: int) -> Line:
    if model.session is None:
        return [Cell("mitml4", "name"), Cell(" is starting")]
    right = f"QUIC refused: {model.quic_blocked}" if model.quic_blocked else ""
    session = model.session
    where = printable(session.attached or ", ".join(session.interfaces) or "one command")
    left = f" intercepts {where}"
    return [Cell("mitml4", "name"), *_both_ends(left, right, width - 6)]


def _authority_line(model: TableModel, width: int) -> Line:
    authority = model.session.ca if model.session else None
    name = printable(authority.subject.removeprefix("CN=")) if authority else ""
    parts = [f"CA {name}"] if name else []
    return [Cell(fit(" · ".join([*parts, *map(printable, model.notes)]), width), "closed")]


def _nothing(model: TableModel, mode: Mode) -> str:
    """The text that is shown if there are no rows."""
    if mode.filter:
        return f"  no flow matches {printable(mode.filter)}"
    if mode.failures:
        return "  no flow has failed"
    return "  waiting for connections …" if model.session else ""


def _footer(model: TableModel, width: int, keys: Sequence[str], chosen: str) -> Line:
    """What was chosen stands first. The bytes give way to three keys; the first of the keys are
    shown at any width."""
    flows = f"{model.open} open of {model.flows} flow{'s' * (model.flows != 1)}"
    moved = f"↑ {short_size(model.bytes_up)} ↓ {short_size(model.bytes_down)}"
    failed = f"{model.failed} failed" if model.failed else ""
    full = "   ".join(filter(None, (chosen, flows, moved, failed)))
    short = "   ".join(filter(None, (chosen, flows, failed)))
    least = "   ".join(filter(None, (chosen, flows)))
    named = ["  ".join(keys[:count]) for count in range(len(keys), 0, -1)]
    pairs = [
        *product([full], named[:-2] or named),
        *product([short], named),
        *product([least, chosen or flows, ""], named[-1:]),
    ]
    both = next((pair for pair in pairs if _fits(*pair, width)), (chosen or flows, ""))
    return [cell._replace(style="footer") for cell in _both_ends(*both, width)]


def _fits(left: str, right: str, width: int) -> bool:
    return cell_len(left) + GAP + cell_len(right) <= width


def _keys(model: TableModel, mode: Mode) -> tuple[str, ...]:
    """The keys that can be pressed now, the most important first."""
    if model.stopping:
        return (f"ending   {'q' if mode.keyboard else 'Ctrl-C'} at once",)
    if not mode.keyboard:
        return ("Ctrl-C quit",)
    if mode.help_page is not None or mode.qr:
        return ("any key: go on",)
    if mode.opened:
        return ("? keys", "q back", "↑↓ scroll", "n next request", "e curl", "w write", "x reset")
    shown = "! all" if mode.failures else "! failed"
    pause = ["Space go on"] if mode.paused else []
    return ("? keys", "q quit", *pause, "Enter open", "/ filter", shown)


def _chosen(mode: Mode) -> str:
    """Why the table is not all flows in the order in which they opened, up to now."""
    left = f" ({mode.unexamined} to compare)" if mode.unexamined else ""
    parts = (
        "paused" if mode.paused else "",
        f"/{printable(mode.filter)}{left}" if mode.filter else "",
        "only failed" if mode.failures else "",
        f"by {mode.sort}" if mode.sort else "",
    )
    return "   ".join(filter(None, parts))


def _both_ends(left: str, right: str, width: int) -> Line:
    """Left and right aligned text in one line; the right one is left out if there is no room."""
    room = width - cell_len(left) - GAP
    if cell_len(right) > room or not right:
        return [Cell(fit(left, width))]
    return [Cell(left), Cell(" " * (room + GAP - cell_len(right))), Cell(right)]


def _exactly(line: Line, width: int) -> Line:
    """Cut or pad the line to the width of the window."""
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
