"""Frames between a session and the process of a script.

Two lengths, then a JSON object, then bytes: the contents that the object refers to by their
lengths, in its order. Each side holds frames to its bounds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Final

from mitml4.dataclass import dataclass

__all__ = ["HOOKS", "LENGTHS", "MAX_HEAD", "Contents", "Frame", "lengths"]

HOOKS: Final = ("request", "response", "message", "data", "open", "layer", "close")
"""The functions that a script may have."""
LENGTHS: Final = struct.Struct("!II")
MAX_HEAD: Final = 4 << 20
_JSON: Final = json.JSONEncoder(separators=(",", ":"))


class Contents:
    """Bytes behind an object."""

    def __init__(self, body: bytes = b"") -> None:
        self._body = body
        self._at = 0
        self._pieces: list[bytes] = []

    def put(self, content: bytes | None) -> int | None:
        """Returns what stands for it in the object."""
        if content is None:
            return None
        self._pieces.append(content)
        return len(content)

    def take(self, length: object) -> bytes | None:
        """The next content. Raises ValueError."""
        if length is None:
            return None
        if type(length) is not int or not 0 <= length <= len(self._body) - self._at:
            raise ValueError("a wrong length")
        self._at += length
        return self._body[self._at - length : self._at]

    @property
    def body(self) -> bytes:
        return b"".join(self._pieces)


@dataclass(frozen=True, slots=True)
class Frame:
    head: Mapping[str, Any]
    body: bytes = b""

    def encode(self) -> bytes:
        head = _JSON.encode(self.head).encode("utf-8", "surrogatepass")
        return LENGTHS.pack(len(head), len(self.body)) + head + self.body

    @classmethod
    def decode(cls, head: bytes, body: bytes) -> Frame:
        """Raises ValueError."""
        try:
            found = json.loads(head.decode("utf-8", "surrogatepass"))
        except RecursionError:
            raise ValueError("too many brackets") from None
        if not isinstance(found, dict):
            raise ValueError("no object")
        return cls(found, body)


def lengths(data: bytes, max_body: int) -> tuple[int, int]:
    """The lengths of head and body. Raises ValueError above the bounds."""
    head, body = LENGTHS.unpack(data)
    if head > MAX_HEAD or body > max_body:
        raise ValueError(f"a message of {head + body} bytes")
    return head, body
