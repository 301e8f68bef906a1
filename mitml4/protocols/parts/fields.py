"""Binary fields, read in order from bytes that may end anywhere.

A rule of detection is the parser of a unit's first fields. Reading past the end raises `Short` as
long as the bytes so far fit. The first byte that cannot fit raises `ProtocolError`. So one function
serves the detector (MATCH, NEED_MORE, REJECT) and the conversation (values, not whole, broken).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Verdict

__all__ = ["PRINTABLE", "Reader", "Short", "evaluate"]

PRINTABLE: Final = bytes(range(0x20, 0x7F))


class Short(Exception):  # noqa: N818, for it is no error: it asks for more bytes
    """The bytes end within a field, and fit so far."""


@dataclass(slots=True)
class Reader:
    """A position in some bytes. Each method reads one field and moves after it.

    Where a unit's length is known, `part` or `whole` gives a reader of that unit alone: reading
    past its end is a ProtocolError, since more bytes would not help.
    """

    data: bytes
    at: int = 0
    end: int | None = None

    @property
    def left(self) -> int:
        """How many of the bytes that have arrived are still unread."""
        return len(self.ahead(len(self.data)))

    def ahead(self, size: int) -> bytes:
        """The next `size` bytes, as far as they have arrived and belong to the unit; does not
        move."""
        stop = self.at + size
        return self.data[self.at : stop if self.end is None else min(stop, self.end)]

    def _missing(self, size: int) -> Exception:
        """The exception to raise where fewer than `size` bytes are left."""
        if self.end is not None and self.at + size > self.end:
            return ProtocolError("a field beyond the end of its unit")
        return Short()

    def part(self, size: int) -> Reader:
        """A reader of the next `size` bytes, which may not have arrived; does not move this one."""
        return Reader(self.data, self.at, self.at + size)

    def whole(self, size: int) -> Reader:
        """A reader of the next `size` bytes; Short unless all have arrived. Moves this one."""
        part = self.part(size)
        self.take(size)
        return part

    def uint(
        self, size: int, low: int = 0, high: int | None = None, *, little: bool = False
    ) -> int:
        """An unsigned integer of `size` bytes, from `low` to `high`; big-endian unless `little`."""
        stop = self.at + size
        raw = self.data[self.at : stop]
        if len(raw) == size and (self.end is None or stop <= self.end):
            value = int.from_bytes(raw, "little" if little else "big")
            if value < low or (high is not None and value > high):
                raise ProtocolError("a number that is out of bounds")
            self.at = stop
            return value
        raw = self.ahead(size)
        self._see_that_it_fits(raw, size, low, high, little=little)
        raise self._missing(size)

    @staticmethod
    def _see_that_it_fits(
        raw: bytes, size: int, low: int, high: int | None, *, little: bool
    ) -> None:
        """Raise ProtocolError unless the bytes so far can become a number from `low` to `high`."""
        missing = 8 * (size - len(raw))
        if high is None:
            high = (1 << 8 * size) - 1
        if little:
            least = int.from_bytes(raw, "little")
            step = 1 << 8 * len(raw)
            least += -(-max(low - least, 0) // step) * step
            fits = least <= high
        else:
            least = int.from_bytes(raw, "big") << missing
            fits = least <= high and low <= least + (1 << missing) - 1
        if not fits:
            raise ProtocolError("a number that is out of bounds")

    def one_of(self, *values: bytes) -> bytes:
        """One of these byte strings. None of them may be a prefix of another."""
        raw = self.ahead(max(map(len, values)))
        for value in values:
            if raw.startswith(value):
                self.at += len(value)
                return value
        candidates = [len(value) for value in values if value.startswith(raw)]
        if candidates:
            raise self._missing(min(candidates))
        raise ProtocolError("none of the possible values")

    def take(self, size: int, alphabet: bytes | None = None) -> bytes:
        """`size` bytes, all in the alphabet (None: any)."""
        stop = self.at + size
        whole = self.end is None or stop <= self.end
        raw = self.data[self.at : stop] if whole else self.ahead(size)
        if alphabet is not None and raw.translate(None, alphabet):
            raise ProtocolError("a text with invalid characters")
        if len(raw) < size:
            raise self._missing(size)
        self.at = stop
        return raw

    def until(self, end: bytes, limit: int, alphabet: bytes | None = PRINTABLE) -> bytes:
        """Up to `limit` bytes of the alphabet (None: any), then the byte `end`, which is not part
        of the result."""
        raw, found, _ = self.ahead(limit + 1).partition(end)
        if len(raw) > limit or (alphabet is not None and raw.translate(None, alphabet)):
            raise ProtocolError("a text that does not end, or has invalid characters")
        if not found:
            raise self._missing(len(raw) + 1)
        self.at += len(raw) + 1
        return raw


def evaluate(rule: Callable[[Reader], object], data: bytes) -> Verdict:
    """The verdict of a rule on the first bytes of a direction."""
    try:
        rule(Reader(data))
    except Short:
        return Verdict.NEED_MORE
    except ProtocolError:
        return Verdict.REJECT
    return Verdict.MATCH
