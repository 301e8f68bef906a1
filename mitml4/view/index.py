"""The flows of a file on disk, to go to any of them at once, however many there are.

They are in a temporary database of SQLite, which nobody else can open and which is gone when it is
closed (https://www.sqlite.org/inmemorydb.html, "Temporary Databases"). SQLite keeps a few MiB of it
in memory.
"""

from __future__ import annotations

import pickle
import sqlite3
from typing import Any, Final, NamedTuple

from mitml4.filter.expression import Filter
from mitml4.model.flow import Flow
from mitml4.view.outline import has_failed, outline

__all__ = ["SORTS", "Entry", "Index", "entry_of"]

SORTS: Final = {"": "number", "bytes": "-bytes", "server": "server", "stack": "stack"}
"""The orders of the flows; the first is that of their opening."""
_SEPARATOR: Final = "\x1f"
_COLUMNS: Final = "number, server, stack, outline, up, down, duration_s, client, failed"


class Entry(NamedTuple):
    """What a list shows of a flow."""

    number: int
    server: str
    stack: tuple[str, ...]
    outline: str
    up: int
    down: int
    duration_s: float | None
    client: str
    failed: bool


def entry_of(flow: Flow) -> Entry:
    return Entry(
        number=flow.number,
        server=str(flow.server),
        stack=flow.stack,
        outline=outline(flow),
        up=flow.bytes_up,
        down=flow.bytes_down,
        duration_s=flow.duration_s,
        client=str(flow.client),
        failed=has_failed(flow) or flow.reason in ("blocked", "denied"),
    )


class Index:
    """Flows that are added one by one, and a selection of them."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(
            "CREATE TABLE flow (id INTEGER PRIMARY KEY, number, server, stack, outline, up, down,"
            " duration_s, client, failed, bytes, content)"
        )
        self._db.execute("CREATE TABLE chosen (id INTEGER PRIMARY KEY)")
        self._db.execute("CREATE INDEX by_number ON flow (number, id)")
        self._db.execute("BEGIN")
        self.total = 0
        self._filter: Filter | None = None
        self._examined = 0
        """Flows up to this one have been compared with the filter."""
        self._sort, self._only_failed = "", False

    def close(self) -> None:
        self._db.close()

    def add(self, flow: Flow) -> None:
        self.total += 1
        entry = entry_of(flow)
        shown = entry._replace(stack=_SEPARATOR.join(entry.stack))  # type: ignore[arg-type]
        content = pickle.dumps(flow, pickle.HIGHEST_PROTOCOL)
        values = [_storable(value) for value in (*shown, entry.up + entry.down, content)]
        self._db.execute(f"INSERT INTO flow VALUES (NULL{', ?' * len(values)})", values)

    def select(
        self, condition: Filter | None = None, *, sort: str = "", only_failed: bool = False
    ) -> None:
        """What `count` and `entries` are about. With a filter, `examine` has to be called."""
        if condition is not self._filter:
            self._db.execute("DELETE FROM chosen")
            self._examined = 0
        self._filter, self._sort, self._only_failed = condition, sort, only_failed

    def examine(self, count: int) -> bool:
        """Compare so many flows with the filter. Returns whether there are more."""
        if self._filter is None:
            return False
        found = self._db.execute(
            "SELECT id, content FROM flow WHERE id > ? ORDER BY id LIMIT ?", (self._examined, count)
        ).fetchall()
        for identity, content in found:
            self._examined = identity
            if self._filter.matches(_flow(content)):
                self._db.execute("INSERT INTO chosen VALUES (?)", (identity,))
        return self._examined < self.total

    def count(self) -> int:
        """The flows that are selected."""
        if self._filter is None and not self._only_failed:
            return self.total
        (count,) = self._db.execute(f"SELECT count(*) FROM {self._source()}").fetchone()
        return int(count)

    def entries(self, start: int, count: int) -> list[Entry]:
        """Selected flows, by their place in the order."""
        rows = self._db.execute(f"SELECT {_COLUMNS} {self._selected()}", (count, start))
        return [_entry(*row) for row in rows]

    def flow(self, place: int) -> Flow | None:
        """The flow at a place in the order."""
        row = self._db.execute(f"SELECT content {self._selected()}", (1, place)).fetchone()
        return _flow(row[0]) if row else None

    def _selected(self) -> str:
        return f"FROM {self._source()} ORDER BY {SORTS[self._sort]}, id LIMIT ? OFFSET ?"

    def _source(self) -> str:
        source = "flow JOIN chosen USING (id)" if self._filter else "flow"
        return f"{source} WHERE failed" if self._only_failed else source


def _storable(value: Any) -> Any:
    """SQLite stores neither lone surrogates nor numbers of more than 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return min(value, (1 << 63) - 1) if isinstance(value, int) else value


def _entry(number: int, server: str, stack: str, *others: Any) -> Entry:
    entry = Entry(number, server, tuple(filter(None, stack.split(_SEPARATOR))), *others)
    return entry._replace(failed=bool(entry.failed))


def _flow(content: bytes) -> Flow:
    flow = pickle.loads(content)  # of ours, and nobody else could write it
    assert isinstance(flow, Flow)
    return flow
