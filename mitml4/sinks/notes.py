"""Notes to the user, on standard error."""

from __future__ import annotations

from collections.abc import Callable

from mitml4.printable import printable
from mitml4.sinks.updates import Note, Published

__all__ = ["Notes"]


class Notes:
    """Says each note as it comes."""

    wants = (Note,)

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def publish(self, event: Published) -> None:
        if isinstance(event, Note):
            self._say(f"note: {printable(event.text)}")
