"""Writes a format in `publish` itself: for captures, whose events must not be dropped."""

from __future__ import annotations

from typing import Final, Generic

from mitml4.sinks.format import Format, Item
from mitml4.sinks.updates import Published

__all__ = ["Inline", "InlineFile"]

_BATCH: Final = 1000
"""Items."""
_BATCH_BYTES: Final = 1 << 20


class Inline(Generic[Item]):
    """A sink that writes in batches, and blocks until they are written. `publish`, `flush` and
    `finish` raise OSError."""

    def __init__(self, output: Format[Item]) -> None:
        self.name = output.file.name
        self.wants = output.wants
        self._format = output
        self._items: list[Item] = []
        self._size = 0

    @property
    def dropped(self) -> int:
        return self._format.dropped

    def publish(self, event: Published) -> None:
        for item in self._format.take(event):
            self._items.append(item)
            _, size, _ = self._format.weight(item)
            self._size += size
        if len(self._items) >= _BATCH or self._size >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        items, self._items, self._size = self._items, [], 0
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
