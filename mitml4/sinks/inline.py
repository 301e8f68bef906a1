"""Writes a format in `publish` itself: for captures, whose events must not be dropped."""

from __future__ import annotations

from typing import Final, Generic

from mitml4.sinks.format import Format, Item
from mitml4.sinks.updates import Published

__all__ = ["Inline", "InlineFile"]

_BATCH: Final = 128
"""Items. What is said in them may be long, so these are not many."""


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
        self._items += self._format.take(event)
        if len(self._items) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        items, self._items = self._items, []
        if items:
            self._format.write(items)

    def finish(self) -> None:
        self.flush()
        self._format.finish()


class InlineFile(Inline[Item]):
    """The same for a file that is not standard output. Its methods raise MitmError, which names the
    file."""

    def __init__(self, output: Format[Item]) -> None:
        super().__init__(output)
        self._file = output.file

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise self._file.failure(error) from error

    def finish(self) -> None:
        try:
            super().finish()
            self._format.close()
        except OSError as error:
            raise self._file.failure(error) from error
