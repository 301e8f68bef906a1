"""Protocol Buffers without a schema: the fields of a message, as far as its wire format shows them.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["guess"]

_MAX_DEPTH: Final = 8
_MAX_VARINT: Final = 10
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5


def guess(data: bytes) -> list[str]:
    """A line for each field, those of inner messages indented; empty if it is no message."""
    try:
        return _fields(data, 0)
    except ValueError:
        return []


def _fields(data: bytes, depth: int) -> list[str]:
    lines: list[str] = []
    indent, at = "  " * depth, 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise ValueError("no field has the number 0")
        name = f"{indent}{number}"
        if wire_type == _VARINT:
            value, at = _varint(data, at)
            lines.append(f"{name}: {value}")
        elif wire_type == _LEN:
            length, at = _varint(data, at)
            piece, at = _take(data, at, length)
            lines += _of_length(piece, name, depth)
        elif wire_type == _I64:
            piece, at = _take(data, at, 8)
            lines.append(f"{name}: {struct.unpack('<d', piece)[0]:g} (0x{piece[::-1].hex()})")
        elif wire_type == _I32:
            piece, at = _take(data, at, 4)
            lines.append(f"{name}: {struct.unpack('<f', piece)[0]:g} (0x{piece[::-1].hex()})")
        else:
            raise ValueError(f"wire type {wire_type}")
    return lines


def _of_length(piece: bytes, name: str, depth: int) -> list[str]:
    """A text, an inner message, or bytes: the first of them that it can be."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and (text.isprintable() or not text):
        return [f'{name}: "{text}"']
    if depth < _MAX_DEPTH:
        try:
            return [f"{name}:", *_fields(piece, depth + 1)]
        except ValueError:
            pass
    return [f"{name}: {len(piece)} bytes {piece.hex(' ')}"]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next field begins."""
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a number without an end")


def _take(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if at + length > len(data):
        raise ValueError("a field longer than its message")
    return data[at : at + length], at + length
