"""IP fragments put together again (RFC 791 §3.2, RFC 8200 §4.5), a bounded number at a time."""

from __future__ import annotations

from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass

__all__ = ["Fragments"]

_MAX_DATAGRAMS: Final = 256
_MAX_LENGTH: Final = 65535
_MAX_PARTS: Final = 8192
"""Of a datagram: each but the last is eight bytes long at least."""


@dataclass(slots=True)
class _Datagram:
    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    """Bytes of all parts."""
    length: int | None = None

    def add(self, offset: int, data: bytes) -> None:
        if offset not in self.parts:
            self.parts[offset] = data
            self.size += len(data)

    def whole(self) -> bytes | None:
        """All of it, once there is no hole; of what overlaps, what stands first counts."""
        if self.length is None or self.size < self.length:
            return None
        data = bytearray()
        for offset in sorted(self.parts):
            if offset > len(data):
                return None
            data += self.parts[offset][len(data) - offset :]
        return bytes(data[: self.length]) if len(data) >= self.length else None


@dataclass(slots=True)
class Fragments:
    """Datagrams of which something is missing yet; the oldest gives way when they are too many."""

    _open: dict[bytes, _Datagram] = field(default_factory=dict)

    def add(self, key: bytes, offset: int, data: bytes, *, more: bool) -> bytes | None:
        """Take one fragment; the datagram's payload when it is the last that was missing.

        `key` tells datagrams apart: addresses, identification and protocol. `offset` is in bytes.
        """
        if offset + len(data) > _MAX_LENGTH:
            return None
        datagram = self._open.get(key)
        if datagram is None:
            if len(self._open) >= _MAX_DATAGRAMS:
                del self._open[next(iter(self._open))]
            datagram = self._open[key] = _Datagram()
        datagram.add(offset, data)
        if not more:
            datagram.length = offset + len(data)
        whole = datagram.whole()
        if whole is not None or datagram.size > 2 * _MAX_LENGTH or len(datagram.parts) > _MAX_PARTS:
            del self._open[key]
        return whole
