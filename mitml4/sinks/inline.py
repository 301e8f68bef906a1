"""Writes a format in `publish` itself: for captures, whose events must not be dropped."""

from __future__ import annotations

from typing import Final, Generic

from mitml4.sinks.format import Format, Item
from mitml4.sinks.updates import Published

__all__ = ["Inline"]

_BATCH: Final = 1000


class Inline(Generic[Item]):
    """A sink that writes in batches, and blocks until they are written. `publish`, `flush` and
    `finish` raise OSError."""

    def __init__(self, output: Format[Item]) -> None:
        self.name = output.file.name
        self.wants = output.wants
        self._format = output
        self._items: list[Item] = []

    @property
    def dropped(self) -> int:
        return self._format.dropped

    def publish(self, event: Published) -> None:
        self._items.extend(self._format.take(event))
        if len(self._items) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        items, self._items = self._items, []
        if items:
            self._format.write(items)

    def finish(self) -> None:
        self.flush()
        self._format.finish()
