"""Binary fields read in order from bytes that may end anywhere.

A rule of detection is written once, as the parser of a unit's first fields. Reading past the end
raises `Short`, as long as what there is of the field can still become one; the first byte that
rules it out raises `ProtocolError`. So the same function says REJECT, NEED_MORE and MATCH to the
detector, and "that is no such unit", "not enough yet" and its values to the conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Verdict

__all__ = ["PRINTABLE", "Reader", "Short", "evaluate"]

PRINTABLE: Final = bytes(range(0x20, 0x7F))


class Short(Exception):  # noqa: N818, for it is no error: it says "more, please"
    """The bytes end before the field does, and fit so far."""


@dataclass(slots=True)
class Reader:
    """A position in some bytes; every method reads one field and moves behind it.

    Where a unit's length is known, a `part` reads its fields: what would lie beyond its end is an
    error then, and not something to wait for.
    """

    data: bytes
    at: int = 0
    end: int | None = None

    @property
    def left(self) -> int:
        """How many of the bytes that have come are still to be read."""
        return len(self._next(len(self.data)))

    def _next(self, size: int) -> bytes:
        """As many of the next bytes as have come and belong to the unit."""
        stop = self.at + size
        return self.data[self.at : stop if self.end is None else min(stop, self.end)]

    def _missing(self, size: int) -> Exception:
        """What to raise where fewer than `size` bytes are left."""
        if self.end is not None and self.at + size > self.end:
            return ProtocolError("a field that lies beyond the end of its unit")
        return Short()

    def part(self, size: int) -> Reader:
        """A reader of the next `size` bytes, which may not have come; this one does not move."""
        return Reader(self.data, self.at, self.at + size)

    def whole(self, size: int) -> Reader:
        """A reader of the next `size` bytes, which have come; this one moves behind them."""
        part = self.part(size)
        self.take(size)
        return part

    def uint(
        self, size: int, low: int = 0, high: int | None = None, *, little: bool = False
    ) -> int:
        """An unsigned integer of `size` bytes, from `low` to `high`; big-endian unless `little`."""
        raw = self._next(size)
        if len(raw) == size:
            value = int.from_bytes(raw, "little" if little else "big")
            if value < low or (high is not None and value > high):
                raise ProtocolError("a number that is out of bounds")
            self.at += size
            return value
        self._see_that_it_fits(raw, size, low, high, little=little)
        raise self._missing(size)

    @staticmethod
    def _see_that_it_fits(
        raw: bytes, size: int, low: int, high: int | None, *, little: bool
    ) -> None:
        """Whether what has come of a number can become one from `low` to `high`."""
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
        """One of these byte strings, of which none begins with another."""
        raw = self._next(max(map(len, values)))
        for value in values:
            if raw.startswith(value):
                self.at += len(value)
                return value
        candidates = [len(value) for value in values if value.startswith(raw)]
        if candidates:
            raise self._missing(min(candidates))
        raise ProtocolError("none of the values that may stand here")

    def take(self, size: int, alphabet: bytes | None = None) -> bytes:
        """`size` bytes, all of the alphabet (None: any)."""
        raw = self._next(size)
        if alphabet is not None and raw.translate(None, alphabet):
            raise ProtocolError("a text with other characters")
        if len(raw) < size:
            raise self._missing(size)
        self.at += size
        return raw

    def until(self, end: bytes, limit: int, alphabet: bytes | None = PRINTABLE) -> bytes:
        """At most `limit` bytes of the alphabet (None: any) up to a byte, which is read as well."""
        raw, found, _ = self._next(limit + 1).partition(end)
        if len(raw) > limit or (alphabet is not None and raw.translate(None, alphabet)):
            raise ProtocolError("a text that does not end, or with other characters")
        if not found:
            raise self._missing(len(raw) + 1)
        self.at += len(raw) + 1
        return raw


def evaluate(rule: Callable[[Reader], object], data: bytes) -> Verdict:
    """What a rule says of the bytes that a direction begins with."""
    try:
        rule(Reader(data))
    except Short:
        return Verdict.NEED_MORE
    except ProtocolError:
        return Verdict.REJECT
    return Verdict.MATCH
