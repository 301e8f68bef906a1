"""The lines of a connection that goes on unread, from copies: for what it announces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mitml4.protocols.conversation import Forward

__all__ = ["COPIED", "Tail"]

COPIED: Final = Forward(is_copied=True)
_MAX_LINE: Final = 1024


class Tail:
    """One direction."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = b""
        """Of the last line, which has not ended; what is too long is dropped."""

    def lines(self, data: bytes) -> Iterator[bytes]:
        """The lines that end in these bytes, without their ends."""
        *whole, rest = data.split(b"\n")
        for number, line in enumerate(whole):
            if number == 0:
                line, self._begun = self._begun + line, b""
            if len(line) <= _MAX_LINE:
                yield line.removesuffix(b"\r")
        self._begun = (self._begun + rest)[: _MAX_LINE + 1]
