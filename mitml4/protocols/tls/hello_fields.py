"""The fields of hellos: numbers, vectors, and the lists in extensions.

What is shorter than its lengths say raises ProtocolError.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

from mitml4.errors import ProtocolError
from mitml4.remember import remembered

__all__ = [
    "Cursor",
    "alpn",
    "extensions",
    "host_names",
    "key_shares",
    "numbers",
    "read",
    "uint8s",
    "uint16s",
    "versions",
]

Item = TypeVar("Item")

_REMEMBERED: Final = 256
_MAX_REMEMBERED_BYTES: Final = 512


class Cursor:
    """Reads the fields of a message in order; reading past its end is a ProtocolError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise _is_shorter()
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        """A vector with its length, of `width` bytes, before it (RFC 8446 §3.4)."""
        start = self._at + width
        self._at = end = start + int.from_bytes(self._data[self._at : start], "big")
        if end > len(self._data):
            raise _is_shorter()
        return self._data[start:end]


def _is_shorter() -> ProtocolError:
    return ProtocolError("a TLS hello is shorter than its lengths")


def numbers(data: bytes, width: int) -> tuple[int, ...]:
    """All of it as numbers."""
    count, odd = divmod(len(data), width)
    if odd:
        raise _is_shorter()
    if width == 1:
        return tuple(data)
    if width == 2:
        return struct.unpack(f">{count}H", data)
    parts = (data[at : at + width] for at in range(0, len(data), width))
    return tuple(int.from_bytes(part, "big") for part in parts)


_extension_head: Final = struct.Struct(">HH").unpack_from


def extensions(cursor: Cursor) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """The types in order, and the body of each (SSL 3 hellos end before extensions)."""
    types: list[int] = []
    bodies: dict[int, bytes] = {}
    block = cursor.vector(2) if cursor else b""
    at, length = 0, len(block)
    while at < length:
        start = at + 4
        if start > length:
            raise _is_shorter()
        kind, size = _extension_head(block, at)
        at = start + size
        if at > length:
            raise _is_shorter()
        types.append(kind)
        if kind not in bodies:
            bodies[kind] = block[start:at]
    return tuple(types), bodies


# A client's extensions repeat, apart from its keys, so what was read is remembered.


def read(reader: Callable[[bytes], tuple[Item, ...]], body: bytes | None) -> tuple[Item, ...]:
    """The list in an extension; empty if it is absent."""
    return reader(body) if body is not None else ()


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def uint16s(body: bytes) -> tuple[int, ...]:
    return numbers(Cursor(body).vector(2), 2)


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def versions(body: bytes) -> tuple[int, ...]:
    return numbers(Cursor(body).vector(1), 2)


def uint8s(body: bytes) -> tuple[int, ...]:
    return tuple(Cursor(body).vector(1))


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def host_names(body: bytes) -> tuple[str, ...]:
    """RFC 6066 §3: the names of type 0. Some clients send the extension without a list."""
    found = []
    names = Cursor(Cursor(body).vector(2) if body else b"")
    while names:
        kind = names.number(1)
        name = names.vector(2)
        if kind == 0:
            found.append(name.decode("utf-8", "backslashreplace"))
    return tuple(found)


def alpn(body: bytes | None) -> tuple[bytes, ...] | None:
    return None if body is None else _protocols(body)


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def _protocols(body: bytes) -> tuple[bytes, ...]:
    names = Cursor(Cursor(body).vector(2))
    offered = []
    while names:
        offered.append(names.vector(1))
    return tuple(offered)


def key_shares(body: bytes) -> tuple[int, ...]:
    groups = []
    shares = Cursor(Cursor(body).vector(2))
    while shares:
        groups.append(shares.number(2))
        shares.vector(2)
    return tuple(groups)
