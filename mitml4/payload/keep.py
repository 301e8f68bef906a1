"""The first bytes of a body, up to the limit and within the flow's memory."""

from __future__ import annotations

from mitml4.payload.budget import Payload

__all__ = ["Keep"]


class Keep:
    """Keeps what is added until it is full. Counts all of it."""

    __slots__ = ("_payload", "data", "is_full", "size")

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self.data = bytearray()
        self.size = 0
        """Bytes so far, those that were not kept included."""
        self.is_full = False
        """Whether nothing more will be kept."""

    @property
    def is_cut(self) -> bool:
        """Whether some bytes were not kept."""
        return self.size > len(self.data)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.is_full or not data:
            return
        wanted = min(len(data), self._payload.limit - len(self.data))
        granted = self._payload.hold(wanted)
        self.data += data[:granted]
        self.is_full = granted < wanted or len(self.data) >= self._payload.limit

    def skip(self, count: int) -> None:
        """Count bytes that were not seen. Nothing after them is kept."""
        self.size += count
        self.is_full = self.is_full or count > 0

    def clear(self) -> None:
        """Give the memory back. The size stays."""
        self._payload.release(len(self.data))
        self.data = bytearray()
        self.is_full = True
