"""What a person looks at in the flows of a file: keys change it, and it makes the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.cells import cell_len, set_cell_size

from mitml4.filter.expression import Filter
from mitml4.model.curl import as_curl
from mitml4.model.flow import Flow
from mitml4.printable import printable
from mitml4.screen.canvas import Cell, Line
from mitml4.screen.detail import REQUESTS, DetailLine, detail, exchange_at, next_request
from mitml4.screen.keyboard import BACK, DOWN, ENTER, FIRST, LAST, PAGE_DOWN, PAGE_UP, UP
from mitml4.screen.keys import VIEW_KEYS
from mitml4.screen.prompt import prompt_lines, type_key
from mitml4.screen.sheet import sheet
from mitml4.view.index import SORTS, Index
from mitml4.view.listing import sheet_row

__all__ = ["Browser"]

_FAR: Final = 1 << 40
_WIDE: Final = 140
"""Columns; below them clients are shown only with their flow."""
_FRAME: Final = 3
"""Lines that are not the list: the name, the titles, the keys."""


class Browser:
    """`press` takes a key, `picture` makes the lines of a window."""

    def __init__(
        self,
        name: str,
        index: Index,
        copy: Callable[[str], None],
        save: Callable[[Flow], str],
    ) -> None:
        """`copy` copies a text to the clipboard. `save` writes a flow to a file, and returns what
        was done."""
        self.is_over = False
        self.is_reading = False
        """Whether more flows may come."""
        self.failure = ""
        """Why the file cannot be read any further."""
        self._name = name
        self._index = index
        self._copy = copy
        self._save = save
        self._page = 1
        self._first = 0
        self._selected = 0
        self._detail_of: tuple[int, int] | None = None
        """The place of the flow that is open, and the width of its lines."""
        self._lines: list[DetailLine] = []
        self._opened = False
        self._top = 0
        self._sort, self._only_failed = "", False
        self._filter: Filter | None = None
        self._typed: str | None = None
        self._said = ""
        self._fault_at: int | None = None
        self._keys_from: int | None = None
        """The first key of the page that is shown in place of the flows."""
        self._keys_shown = 0
        """How many that page has."""

    def press(self, key: bytes) -> None:
        self._said = ""
        if self._keys_from is not None:
            following = self._keys_from + self._keys_shown
            self._keys_from = following if following < len(VIEW_KEYS) else None
        elif self._typed is not None:
            self._type(self._typed, key)
        elif key in (b"q", b"Q") or key in BACK:
            self.is_over = not self._opened and key not in BACK
            self._opened = False
        elif key == b"?":
            self._keys_from = 0
        elif key == b"e":
            self._copy_request()
        elif key == b"w":
            flow = self._index.flow(self._selected)
            self._said = self._save(flow) if flow else ""
        elif key == b"/":
            self._typed, self._opened = self._filter.text if self._filter else "", False
        elif key == b"s":
            orders = list(SORTS)
            self._sort = orders[(orders.index(self._sort) + 1) % len(orders)]
            self._select()
        elif key == b"!":
            self._only_failed = not self._only_failed
            self._select()
        elif key in REQUESTS and self._opened:
            starts = [at for at, line in enumerate(self._lines) if line.is_first]
            self._top = next_request(starts, self._top, REQUESTS[key])
        elif key in ENTER:
            self._opened, self._top, self._detail_of = True, 0, None
        else:
            self._move(key)

    def picture(self, width: int, height: int) -> list[Line]:
        """Exactly `height` lines of exactly `width` cells."""
        room = max(1, height - _FRAME)
        self._page = max(1, room - 1)
        count = self._index.count()
        self._selected = max(0, min(self._selected, count - 1))
        lines: list[Line] = [[Cell(self._title(count), "title")]]
        if self._keys_from is not None:
            shown = VIEW_KEYS[self._keys_from :][: max(1, height - 2)]
            lines += [[Cell(f"  {keys:<20}  {what}")] for keys, what in shown]
            self._keys_shown = len(shown)
        elif self._opened and count:
            lines += self._detail(width, room + 1)
        else:
            self._opened = False
            lines += self._list(width, room)
        footer = self._footer(width)
        lines = lines[: height - len(footer)]
        lines += [[] for _ in range(height - len(footer) - len(lines))]
        lines += [[Cell(text, "footer")] for text in footer]
        return [_exactly(line, width) for line in lines[-height:]]

    def _title(self, count: int) -> str:
        chosen = f"{count:,} of " if count != self._index.total else ""
        total = self._index.total
        parts = [printable(self._name), f"{chosen}{total:,} flow{'s' * (total != 1)}"]
        parts += [f"/{printable(self._filter.text)}"] if self._filter else []
        parts += [f"by {self._sort}"] if self._sort else []
        parts += ["failed"] if self._only_failed else []
        parts += ["reading …"] if self.is_reading else []
        return "  ".join(parts)

    def _footer(self, width: int) -> list[str]:
        if self._typed is not None:
            return prompt_lines(self._typed, self._said, self._fault_at, width)
        if self._said:
            return [printable(self._said)]
        if self.failure and not self._opened:
            return [printable(self.failure)]
        if self._keys_from is not None:
            return ["any key: go on"]
        if self._opened:
            return ["? keys  q back  ↑↓ scroll  n next request  e curl  w write"]
        failures = "! all" if self._only_failed else "! failed"
        return [f"? keys  q leave  Enter open  / filter  s sort  {failures}"]

    def _list(self, width: int, room: int) -> list[Line]:
        """The titles, and the flows around the selected one."""
        self._first = min(max(self._first, self._selected - room + 1), self._selected)
        entries = self._index.entries(self._first, room)
        if not entries:
            return [[Cell(self._nothing(), "name")]]
        rows = [sheet_row(entry) for entry in entries]
        if width < _WIDE:
            rows = [row._replace(client=None) for row in rows]
        texts = [text for text, _ in sheet(rows, width)]
        lines: list[Line] = [[Cell(texts[0], "name")]]
        for place, (text, entry) in enumerate(zip(texts[1:], entries, strict=True), self._first):
            style = "selected" if place == self._selected else "failed" if entry.failed else ""
            lines.append([Cell(set_cell_size(text, width), style)])
        return lines

    def _nothing(self) -> str:
        """The text that is shown if there are no flows."""
        if self._filter:
            return f"  no flow matches {printable(self._filter.text)}"
        if self._only_failed:
            return "  no flow has failed"
        return ""

    def _detail(self, width: int, room: int) -> list[Line]:
        if self._detail_of != (self._selected, width):
            flow = self._index.flow(self._selected)
            self._lines = detail(flow, width) if flow else []
            self._detail_of = self._selected, width
        self._top = max(0, min(self._top, len(self._lines) - room))
        shown = self._lines[self._top : self._top + room]
        return [[Cell(line.text, line.style)] for line in shown]

    def _move(self, key: bytes) -> None:
        for keys, lines in (
            *((UP, -1), (DOWN, 1), (PAGE_UP, -self._page), (PAGE_DOWN, self._page)),
            *((FIRST, -_FAR), (LAST, _FAR)),
        ):
            if key in keys and self._opened:
                self._top = max(0, self._top + lines)
            elif key in keys:
                self._selected = max(0, self._selected + lines)

    def _select(self) -> None:
        """Another selection of flows is shown, from its beginning."""
        self._opened, self._first, self._selected = False, 0, 0
        self._index.select(self._filter, sort=self._sort, only_failed=self._only_failed)

    def _type(self, typed: str, key: bytes) -> None:
        """A key while a filter is typed."""
        self._typed, self._filter, self._said, self._fault_at = type_key(typed, key, self._filter)
        if self._typed is None:
            self._select()

    def _copy_request(self) -> None:
        request = exchange_at(self._lines, self._top) if self._opened else None
        if request is None:
            self._said = "open a flow with a request first (Enter)"
            return
        self._copy(as_curl(request))
        self._said = f"copied, if the terminal allows it: curl {request.url}"


def _exactly(line: Line, width: int) -> Line:
    """Cut or pad the line to the width of the window."""
    text, style = (line[0].text, line[0].style) if line else ("", "")
    return [Cell(set_cell_size(text, width) if cell_len(text) != width else text, style)]
