"""The fields of a handshake message (RFC 8446 §3), read strictly and written."""

from __future__ import annotations

import struct
from typing import Final

from mitml4.protocols.tls.alerts import Alert, TlsError

__all__ = ["Fields", "message", "uint16", "vector"]


_TOO_SHORT: Final = "has a vector that is too short"


class Fields:
    """Reads fields in order. A field that is cut, and bytes after the last one, raise
    TlsError(DECODE_ERROR)."""

    __slots__ = ("_data", "_end", "_what", "at")

    def __init__(self, data: bytes, what: str, at: int = 0, end: int | None = None) -> None:
        """`what`: the structure's name for the error's message; `at`, `end`: the part of `data`."""
        self._data = data
        self._what = what
        self._end = len(data) if end is None else end
        self.at = at
        """The offset of the next field in the data."""

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self.at < self._end

    def take(self, count: int) -> bytes:
        start = self.at
        self.at = end = start + count
        if end > self._end:
            raise self.error("is cut")
        return self._data[start:end]

    def uint8(self) -> int:
        return self.take(1)[0]

    def uint16(self) -> int:
        at = self.at
        self.at = end = at + 2
        if end > self._end:
            raise self.error("is cut")
        return self._data[at] << 8 | self._data[at + 1]

    def uint24(self) -> int:
        return int.from_bytes(self.take(3), "big")

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def vector(self, width: int, *, least: int = 0) -> bytes:
        """A vector of at least so many bytes, after its length of `width` bytes."""
        start = self.at + width
        self.at = end = start + int.from_bytes(self._data[self.at : start], "big")
        if end > self._end or end - start < least:
            raise self.error("is cut" if end > self._end else _TOO_SHORT)
        return self._data[start:end]

    def fields(self, width: int, *, least: int = 0) -> Fields:
        """A vector whose items are to be read."""
        start = self._enter(width, least)
        return Fields(self._data, self._what, start, self.at)

    def _enter(self, width: int, least: int) -> int:
        """Go on behind a vector, and say where its content begins."""
        start = self.at + width
        self.at = start + int.from_bytes(self._data[self.at : start], "big")
        if self.at > self._end:
            raise self.error("is cut")
        if self.at - start < least:
            raise self.error(_TOO_SHORT)
        return start

    def extensions(self) -> dict[int, tuple[int, int]]:
        """The list of extensions with its length: the type of each, and where its body begins and
        ends. Raises TlsError as `RawExtensions.read` does."""
        data, at = self._data, self._enter(2, 0)
        found: dict[int, tuple[int, int]] = {}
        while at < self.at:
            start = at + 4
            if start > self.at:
                raise self.error("is cut")
            kind = data[at] << 8 | data[at + 1]
            at = start + (data[at + 2] << 8 | data[at + 3])
            if at > self.at:
                raise self.error("is cut")
            # RFC 8446 §4.2: "There MUST NOT be more than one extension of the same type"
            if kind in found:
                raise TlsError(Alert.ILLEGAL_PARAMETER, f"extension {kind} is there twice")
            found[kind] = start, at
        return found

    def part(self, start: int, end: int) -> Fields:
        """The fields of a part that was found."""
        return Fields(self._data, self._what, start, end)

    def between(self, start: int, end: int) -> bytes:
        """The bytes of a part that was found."""
        return self._data[start:end]

    def uint16s(self, width: int, *, least: int = 1) -> tuple[int, ...]:
        """A vector of so many or more 16-bit numbers, after its length of `width` bytes."""
        content = self.vector(width, least=2 * least)
        count, odd = divmod(len(content), 2)
        if odd:
            raise self.error("is cut")
        return struct.unpack(f">{count}H", content)

    def rest(self) -> bytes:
        return self.take(self._end - self.at)

    def end(self) -> None:
        """Nothing may be left."""
        if self.at < self._end:
            raise self.error("has trailing bytes")

    def error(self, fault: str) -> TlsError:
        return TlsError(Alert.DECODE_ERROR, f"a {self._what} that {fault}")


def uint16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def vector(width: int, *content: bytes) -> bytes:
    """The joined content after its length of `width` bytes."""
    joined = content[0] if len(content) == 1 else b"".join(content)
    return len(joined).to_bytes(width, "big") + joined


def message(kind: int, *fields: bytes) -> bytes:
    """A whole handshake message: type, length and body (RFC 8446 §4)."""
    body = b"".join(fields)
    length = len(body)
    assert length < 1 << 24
    return (kind << 24 | length).to_bytes(4, "big") + body
