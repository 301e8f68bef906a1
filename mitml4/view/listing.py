"""A line for each flow, in the columns of `detect`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from mitml4.model.flow import Flow
from mitml4.printable import printable
from mitml4.screen.sheet import SheetRow, sheet
from mitml4.view.index import Entry, entry_of

__all__ = ["listing", "sheet_row"]

_MAX_ROWS: Final = 1000
"""Of one table: the widths of its columns depend on all of its rows."""


def listing(flows: Iterable[Flow], width: int) -> Iterator[str]:
    """The lines of one table, or of one for each thousand flows."""
    rows = (sheet_row(entry_of(flow)) for flow in flows)
    first = list(islice(rows, _MAX_ROWS))
    while True:
        yield from (line for line, _ in sheet(first, width))
        first = list(islice(rows, _MAX_ROWS))
        if not first:
            return


def sheet_row(entry: Entry) -> SheetRow:
    return SheetRow(
        flow=entry.number,
        client=printable(entry.client),
        server=printable(entry.server),
        stack=tuple(map(printable, entry.stack)),
        summary=printable(entry.outline),
        up=entry.up,
        down=entry.down,
        duration_s=entry.duration_s,
        style="failed" if entry.failed else "",
    )
