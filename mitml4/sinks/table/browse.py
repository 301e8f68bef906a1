"""What a person looks at in the table, and the picture of it.

`Look` is what keys change. `Painter.paint` makes the lines of a window from it, and says what a
key needs to know: the order of the flows, and which of them are in view. It runs in the thread that
draws, so that neither a filter nor a large body delays a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from mitml4.filter.expression import Filter
from mitml4.model.flow import Request
from mitml4.sinks.table.detail import DetailLine, detail, exchange_at
from mitml4.sinks.table.history import History, flow_of
from mitml4.sinks.table.model import Row, TableModel
from mitml4.sinks.table.view import Cell, Line, Mode, body_height, render

__all__ = ["SORTS", "Look", "Painter", "Picture"]

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
    said: str = ""
    """What the last key has done."""
    paused: bool = False
    help_page: int | None = None


class Picture(NamedTuple):
    """The lines of a window, and what they show."""

    lines: list[Line]
    order: list[int]
    """The flows that can be selected, in the order of the table."""
    visible: tuple[int, ...]
    """The flows in view whose byte counts change."""
    top: int = 0
    """`Look.top`, where that was too far."""
    request: Request | None = None
    """The request that is nearest to the first line in view."""


class Painter:
    """Paints one window after the other, and remembers what it has found out."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._verdicts: dict[int, tuple[int, bool]] = {}
        """Whether a flow matches the filter, by number, with how many events that was decided."""
        self._filter: Filter | None = None
        self._lines: tuple[tuple[int, int, int], list[DetailLine]] | None = None
        """Those of the flow that was shown last: its number, its events, the width."""
        self._first = 0
        """The row at the top of the window."""

    def paint(
        self, model: TableModel, look: Look, width: int, height: int, *, keyboard: bool
    ) -> Picture:
        rows = self._listed(model, look)
        order = [row.flow for row in rows]
        selected = look.selected if look.selected in set(order) else None
        mode = Mode(
            keyboard=keyboard,
            paused=look.paused,
            failures=look.failures,
            help_page=look.help_page,
            selected=order[-1] if selected is None and order else selected,
            filter=look.filter.text if look.filter else "",
            typed=look.typed,
            sort=look.sort,
            said=look.said,
            opened=look.opened,
        )
        room = body_height(height)
        if look.opened and mode.selected is not None:
            lines = self._detail(mode.selected, width)
            top = max(0, min(look.top, len(lines) - room))
            body: list[Line] = [[Cell(line.text, line.style)] for line in lines[top : top + room]]
            picture = render(model, [], width, height, mode, body)
            return Picture(picture, order, (mode.selected,), top, exchange_at(lines, top))
        shown = self._window(rows, selected, room)
        visible = tuple(row.flow for row in shown if row.state in ("open", "failed"))
        return Picture(render(model, shown, width, height, mode), order, visible)

    def _window(self, rows: list[Row], selected: int | None, room: int) -> list[Row]:
        """The rows in view: the last ones, or around the selected one, moving only as needed."""
        last = max(0, len(rows) - room)
        if selected is None:
            self._first = last
        else:
            index = next(at for at, row in enumerate(rows) if row.flow == selected)
            self._first = min(max(self._first, index - room + 1), index, last)
        return rows[self._first : self._first + room]

    def _listed(self, model: TableModel, look: Look) -> list[Row]:
        rows = model.listed(failures=look.failures)
        if look.filter:
            rows = list(self._matching(rows, look.filter))
        if look.sort:
            rows.sort(key=SORTS[look.sort])
        return rows

    def _matching(self, rows: Iterable[Row], wanted: Filter) -> Iterable[Row]:
        if wanted is not self._filter:
            self._filter = wanted
            self._verdicts.clear()
        for row in rows:
            events = self._history.events(row.flow)
            known = self._verdicts.get(row.flow)
            if known is None or known[0] != len(events):
                flow = flow_of(events)
                known = len(events), flow is not None and wanted.matches(flow)
                self._verdicts[row.flow] = known
            if known[1]:
                yield row

    def _detail(self, number: int, width: int) -> list[DetailLine]:
        events = self._history.events(number)
        key = number, len(events), width
        if self._lines is None or self._lines[0] != key:
            flow = flow_of(events)
            forgotten = [DetailLine(f"#{number}: its events are not kept any more")]
            self._lines = key, detail(flow, width) if flow else forgotten
        return self._lines[1]
