"""Finds the secrets in what one side of a layer sends.

A finder reads the stream unit by unit (a line, a packet), from the first byte of the layer to the
end, also where no conversation reads it any more: most are over before the login. What is not whole
yet waits, so that every split of the bytes hides the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, TypeAlias

from mitml4.errors import ProtocolError
from mitml4.protocols.parts.fields import Reader, Short

__all__ = ["MAX_UNIT", "SecretFinder", "Span"]

_FREE_BYTES: Final = 1024
_GROWTH: Final = 8
"""Beyond those bytes, an eighth more has to come before a unit is read again."""
MAX_UNIT: Final = 1 << 15
"""Bytes that wait for the rest of their unit."""

Span: TypeAlias = tuple[int, int]
"""Where a secret stands: from, and up to."""


class SecretFinder(ABC):
    """One side of one connection. To be subclassed."""

    def __init__(self) -> None:
        self.is_over = False
        """Nothing secret will come."""
        self._waiting = bytearray()
        self._enough = 0
        """So many bytes have to wait before they are read again."""
        self._skipped = 0
        self._found: list[Span] = []

    @abstractmethod
    def read(self, reader: Reader) -> None:
        """Read one unit, and hide what is secret in it. Raises Short where it is not whole, and
        ProtocolError where it cannot be read: then all of it is hidden that was taken. If that is
        nothing, no unit can be found any more."""

    def hide(self, start: int, end: int) -> None:
        """These bytes of the reader's data are a secret."""
        if start < end:
            self._found.append((start, end))

    def skip(self, count: int) -> None:
        """The bytes behind this unit are no secret, whether they have arrived or not."""
        self._skipped = count

    def feed(self, data: bytes) -> tuple[bytes, list[Span]]:
        """The next bytes. Returns those of which all is known, and where secrets stand in them."""
        self._waiting += data
        return self._read_waiting() if len(self._waiting) >= self._enough else (b"", [])

    def _read_waiting(self) -> tuple[bytes, list[Span]]:
        data, at = bytes(self._waiting), 0
        while at < len(data):
            if self.is_over:
                at = len(data)
            elif self._skipped:
                passed = min(self._skipped, len(data) - at)
                self._skipped -= passed
                at += passed
            elif unit := self._unit(data, at):
                at += unit
            elif not self.is_over:
                break
        del self._waiting[:at]
        # A unit that comes byte by byte would cost the square of its length.
        left = len(self._waiting)
        self._enough = left + left // _GROWTH if left > _FREE_BYTES else 0
        return data[:at], self._take_found(at)

    def end(self) -> tuple[bytes, list[Span]]:
        """The bytes that wait: no more will come."""
        data, found = self._read_waiting()
        rest = bytes(self._waiting)
        self._waiting.clear()
        if rest:
            self.read_rest(rest)
        behind = [
            (len(data) + start, len(data) + end) for start, end in self._take_found(len(rest))
        ]
        return data + rest, found + behind

    def read_rest(self, data: bytes) -> None:
        """Hide what may be secret in a unit that is not whole: all, unless a subclass knows
        more."""
        self.hide(0, len(data))

    def _unit(self, data: bytes, at: int) -> int:
        """The length of the unit that begins here; 0 where it is not whole."""
        reader = Reader(data, at)
        found = len(self._found)
        try:
            self.read(reader)
        except Short:
            del self._found[found:]
            self.is_over = len(data) - at > MAX_UNIT
            return 0
        except ProtocolError:
            self.hide(at, reader.at)
            self.is_over = reader.at == at
        return reader.at - at

    def _take_found(self, size: int) -> list[Span]:
        """The secrets in so many bytes, in order. Lengths in the traffic may be wrong."""
        found, self._found = sorted(self._found), []
        spans, last = [], 0
        for start, end in found:
            start, end = max(start, last), min(end, size)
            if start < end:
                spans.append((start, end))
                last = end
        return spans
