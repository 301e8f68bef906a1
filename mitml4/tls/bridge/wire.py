"""The fields of a handshake message (RFC 8446 §3), read strictly and written."""

from __future__ import annotations

import struct

from mitml4.protocols.tls.alerts import Alert, TlsError

__all__ = ["Fields", "message", "uint16", "vector"]


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

    def _skip(self, count: int) -> int:
        """Go on behind the next bytes, and say where they begin."""
        start, self.at = self.at, self.at + count
        if self.at > self._end:
            raise self.error("is cut")
        return start

    def take(self, count: int) -> bytes:
        return self._data[self._skip(count) : self.at]

    def uint8(self) -> int:
        return self._data[self._skip(1)]

    def uint16(self) -> int:
        start = self._skip(2)
        return self._data[start] << 8 | self._data[start + 1]

    def uint24(self) -> int:
        return int.from_bytes(self.take(3), "big")

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def vector(self, width: int, *, least: int = 0) -> bytes:
        """A vector of at least so many bytes, after its length of `width` bytes."""
        content = self.take(int.from_bytes(self.take(width), "big"))
        if len(content) < least:
            raise self.error("has a vector that is too short")
        return content

    def fields(self, width: int, *, least: int = 0) -> Fields:
        """A vector whose items are to be read."""
        start = self._skip(int.from_bytes(self.take(width), "big"))
        if self.at - start < least:
            raise self.error("has a vector that is too short")
        return Fields(self._data, self._what, start, self.at)

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
        if self:
            raise self.error("has trailing bytes")

    def error(self, fault: str) -> TlsError:
        return TlsError(Alert.DECODE_ERROR, f"a {self._what} that {fault}")


def uint16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def vector(width: int, *content: bytes) -> bytes:
    """The joined content after its length of `width` bytes."""
    joined = b"".join(content)
    return len(joined).to_bytes(width, "big") + joined


def message(kind: int, *fields: bytes) -> bytes:
    """A whole handshake message: type, length and body (RFC 8446 §4)."""
    return bytes((kind,)) + vector(3, *fields)
