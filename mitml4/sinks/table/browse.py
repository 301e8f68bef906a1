"""What a person looks at in the table, and the picture of it.

`Look` is what keys change. `Painter.paint` makes the lines of a window from it, and says what a
key needs to know: the order of the flows, and which of them are in view. It runs in the thread that
draws, so that neither a filter nor a large body delays a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from mitml4.filter.expression import Filter
from mitml4.model.flow import Request
from mitml4.screen.canvas import Cell, Line
from mitml4.screen.detail import Detail, DetailLine, exchange_at
from mitml4.sinks.table.history import History, Reader, Version
from mitml4.sinks.table.model import Row, TableModel
from mitml4.sinks.table.view import Mode, body_height, render

__all__ = ["SORTS", "Look", "Painter", "Picture"]

_EVENTS_A_FRAME: Final = 2000
"""As many are compared with a filter for one picture. Flows have priority over the table."""
_UNKNOWN: Final[tuple[Version, bool]] = ((0, 0), False)

SORTS: Final[dict[str, Callable[[Row], Any]]] = {
    "": lambda row: row.flow,
    "bytes": lambda row: row.up + row.down,
    "server": lambda row: (row.server.split(".")[::-1], row.flow),
    "stack": lambda row: (row.stack, row.flow),
}
"""The orders of the flows; the first is that of their opening."""


class Look(NamedTuple):
    """What a person looks at."""

    selected: int | None = None
    """The flow that keys are about; None: the newest, whichever that is."""
    opened: bool = False
    """Whether that flow is shown, instead of all."""
    top: int = 0
    """The first line of it that is shown."""
    failures: bool = False
    sort: str = ""
    filter: Filter | None = None
    typed: str | None = None
    """A filter that is being typed."""
    fault_at: int | None = None
    """The place of a fault in it, which `said` describes."""
    said: str = ""
    """What the last key has done."""
    paused: bool = False
    help_page: int | None = None
    qr: tuple[str, ...] = ()
    """The QR code of the CA page, while that is shown in place of the flows."""


class Picture(NamedTuple):
    """The lines of a window, and what they show."""

    lines: list[Line]
    order: list[int]
    """The flows that can be selected, in the order of the table."""
    selected: int | None
    """The flow that is marked, or shown."""
    visible: tuple[int, ...]
    """The flows in view whose byte counts change."""
    top: int = 0
    """`Look.top`, where that was too far."""
    request: Request | None = None
    """The request that is nearest to the first line in view."""
    requests: tuple[int, ...] = ()
    """The first line of each request, in the flow that is shown."""
    is_complete: bool = True
    """Whether all flows have been compared with the filter."""


class Painter:
    """Paints one window after the other, and remembers what it has found out."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._reader = Reader(history)
        self._verdicts: dict[int, tuple[Version, bool]] = {}
        """Whether a flow matches the filter, by number, and by which events that was decided."""
        self._filter: Filter | None = None
        self._detail = Detail()
        self._first = 0
        """The row at the top of the window."""

    def paint(
        self, model: TableModel, look: Look, width: int, height: int, *, keyboard: bool
    ) -> Picture:
        rows, unexamined = self._listed(model, look)
        order = [row.flow for row in rows]
        index = _nearest(rows, look)
        selected = order[index] if index is not None else None
        if look.opened:
            selected = look.selected
        mode = Mode(
            keyboard=keyboard,
            paused=look.paused,
            failures=look.failures,
            help_page=look.help_page,
            qr=look.qr,
            selected=selected,
            filter=look.filter.text if look.filter else "",
            unexamined=unexamined,
            typed=look.typed,
            sort=look.sort,
            fault_at=look.fault_at,
            said=look.said,
            opened=look.opened,
        )
        room = body_height(height)
        if look.opened and selected is not None:
            lines = self._lines(model.row(selected), selected, width)
            top = max(0, min(look.top, len(lines) - 1 - room))
            body: list[Line] = [
                [Cell(line.text, line.style)] for line in (lines[0], *lines[1:][top : top + room])
            ]
            requests = tuple(at - 1 for at, line in enumerate(lines) if line.is_first)
            picture = render(model, [], width, height, mode, body)
            request = exchange_at(lines, top + 1)
            visible: tuple[int, ...] = (selected,)
            return Picture(
                picture, order, selected, visible, top, request, requests, not unexamined
            )
        shown = self._window(rows, None if look.selected is None else index, room)
        visible = tuple(row.flow for row in shown if row.state in ("open", "failed"))
        picture = render(model, shown, width, height, mode)
        return Picture(picture, order, selected, visible, is_complete=not unexamined)

    def _window(self, rows: list[Row], index: int | None, room: int) -> list[Row]:
        """The rows in view: the last ones, or around the selected one, moving only as needed."""
        last = max(0, len(rows) - room)
        at = last if index is None else max(self._first, index - room + 1)
        self._first = min(at, last if index is None else index, last)
        return rows[self._first : self._first + room]

    def _listed(self, model: TableModel, look: Look) -> tuple[list[Row], int]:
        """The rows to show in their order, and how many have still to be compared."""
        rows, unexamined = model.listed(failures=look.failures), 0
        if look.filter:
            unexamined = self._examine(rows, look.filter)
            rows = [row for row in rows if self._verdicts.get(row.flow, _UNKNOWN)[1]]
        if look.sort:
            rows.sort(key=SORTS[look.sort])
        return rows, unexamined

    def _examine(self, rows: Sequence[Row], wanted: Filter) -> int:
        """Compare flows that are new or have changed, the newest first, as many as one picture may
        take. Returns the number of the others. A flow keeps its verdict when its events are
        forgotten."""
        known = self._verdicts if wanted is self._filter else {}
        verdicts: dict[int, tuple[Version, bool]] = {}
        budget, unexamined = _EVENTS_A_FRAME, 0
        for row in reversed(rows):
            number, version = row.flow, self._history.version(row.flow)
            verdict = known.get(number)
            if (verdict is None or verdict[0] != version) and version[1]:
                if budget <= 0:
                    unexamined += 1
                else:
                    budget -= self._reader.unread(number)
                    if built := self._reader.flow(number):
                        verdict = built.version, wanted.matches(built.flow)
            if verdict is not None:
                verdicts[number] = verdict
        self._filter, self._verdicts = wanted, verdicts
        return unexamined

    def _lines(self, row: Row | None, number: int, width: int) -> list[DetailLine]:
        built = self._reader.flow(number)
        if built is None:
            return [DetailLine(f"#{number}: its events are not kept any more", "title")]
        moved = (row.up, row.down) if row else None
        return self._detail.lines(
            built.flow,
            width,
            version=built.version,
            moved=moved,
            missing=self._history.missing(number),
        )


def _nearest(rows: Sequence[Row], look: Look) -> int | None:
    """The place of the selected flow, or of the next one where it is no longer in the table."""
    if not rows:
        return None
    if look.selected is None:
        return len(rows) - 1
    exact = next((at for at, row in enumerate(rows) if row.flow == look.selected), None)
    if exact is not None:
        return exact
    later = (at for at, row in enumerate(rows) if row.flow > look.selected)
    return next(later, len(rows) - 1)
