"""What is written to a file as events come: the form of it, and nothing of when.

Live, a format is written in the background (background.py), so that no flow waits for a disk. Of a
capture it is written inline (inline.py), so that nothing is lost.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, NamedTuple, TypeVar

from mitml4.sinks.files import OutputFile
from mitml4.sinks.notices import Published

__all__ = ["Format", "Item", "Weight"]

Item = TypeVar("Item")


class Weight(NamedTuple):
    """What an item takes while it waits to be written."""

    flow: int
    size: int
    """Bytes, about."""
    is_vital: bool = False
    """It is dropped only where there is no memory at all."""


class Format(ABC, Generic[Item]):
    """Makes items of events, and writes items to its file."""

    wants: ClassVar[tuple[type, ...]]

    def __init__(self, file: OutputFile) -> None:
        """The file becomes ours."""
        self.file = file
        self.dropped = 0
        """Events of which it could not keep what it needs."""

    @abstractmethod
    def take(self, event: Published) -> Iterable[Item]:
        """The items that are complete with this event."""

    @abstractmethod
    def weight(self, item: Item) -> Weight:
        """What an item takes."""

    @abstractmethod
    def write(self, batch: Sequence[Item]) -> None:
        """Encode these and write them; it may block, and run in a thread. Raises OSError."""

    def finish(self) -> None:
        """Write what comes behind the last item, in the same way. Raises OSError."""
