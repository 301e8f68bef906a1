"""The form of an output file, independent of when it is written.

In a session a format is written in the background (background.py), so that no flow waits for a
disk. For a capture it is written inline (inline.py), so that nothing is dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeAlias, TypeVar

from mitml4.sinks.files import OutputFile
from mitml4.sinks.updates import Published

__all__ = ["Format", "Item", "Weight"]

Item = TypeVar("Item")


Weight: TypeAlias = tuple[int, int, bool]
"""What an item occupies while it waits to be written: its flow, approximate bytes, and whether it
is vital: then it is dropped only when the memory for vital items is full."""


class Format(ABC, Generic[Item]):
    """Makes items of events, and writes items to its file."""

    wants: ClassVar[tuple[type, ...]]

    def __init__(self, file: OutputFile) -> None:
        """The file becomes ours."""
        self.file = file
        self.dropped = 0
        """Events that could not be used because its memory was full."""

    @abstractmethod
    def take(self, event: Published) -> Iterable[Item]:
        """The items that this event completes."""

    @abstractmethod
    def weight(self, item: Item) -> Weight:
        """The weight of an item."""

    @abstractmethod
    def write(self, batch: Sequence[Item]) -> None:
        """Encode items and write them. May block, and may run in a thread. Raises OSError."""

    def finish(self) -> None:
        """Write what follows the last item, in the same way. Raises OSError."""

    def close(self) -> None:
        """Close the file, wherever its content ends. Raises OSError."""
        self.file.close()
