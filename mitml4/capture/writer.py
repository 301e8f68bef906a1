"""The pcapng format, written: one section, in little-endian order, with times in nanoseconds.

Source: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-04.html, sections in brackets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from mitml4.capture.pcapng import (
    ENHANCED_PACKET,
    IF_TSRESOL,
    INTERFACE,
    SECRETS,
    SECTION,
    TLS_KEY_LOG,
)

__all__ = ["interface", "packet", "secrets", "section", "statistics"]

_STATISTICS: Final = 5  # [4.6]

_COMMENT: Final = 1  # [3.5]
_APPLICATION: Final = 4  # [4.1]
_IF_NAME: Final = 2  # [4.2]
_FLAGS: Final = 2  # [4.3]
_RECEIVED: Final = 4  # [4.6]
_DROPPED: Final = 5

_INBOUND, _OUTBOUND = 1, 2
_NANOSECONDS: Final = b"\x09"
_MAX_OPTION: Final = 0xFFFF

Option = tuple[int, bytes]


def section(application: str) -> bytes:
    """The block that a file begins with. `application`: who writes it."""
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(SECTION, body, [(_APPLICATION, application.encode())])


def interface(link_type: int, name: str) -> bytes:
    """An interface; packets refer to it by its number, from 0."""
    options = [(_IF_NAME, name.encode()), (IF_TSRESOL, _NANOSECONDS)]
    return _block(INTERFACE, struct.pack("<HHI", link_type, 0, 0), options)


def packet(
    interface: int,
    time_ns: int,
    data: bytes,
    length: int,
    *,
    outbound: bool = False,
    comment: str | None = None,
) -> bytes:
    """A packet of `length` bytes, of which `data` was captured. `time_ns`: since the epoch."""
    head = struct.pack("<IIIII", interface, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
    flags = struct.pack("<I", _OUTBOUND if outbound else _INBOUND)
    options = [(_COMMENT, _text(comment))] if comment else []
    return _block(ENHANCED_PACKET, head + _padded(data), [*options, (_FLAGS, flags)])


def secrets(lines: Iterable[bytes]) -> bytes:
    """TLS secrets in the key log's format, for the packets that follow [4.7]."""
    data = b"".join(line + b"\n" for line in lines)
    return _block(SECRETS, struct.pack("<II", TLS_KEY_LOG, len(data)) + _padded(data))


def statistics(interface: int, time_ns: int, *, received: int, dropped: int) -> bytes:
    """How many packets an interface had, and how many of them are missing for want of time."""
    head = struct.pack("<III", interface, time_ns >> 32, time_ns & 0xFFFFFFFF)
    numbers = [(_RECEIVED, received), (_DROPPED, dropped)]
    return _block(_STATISTICS, head, [(code, struct.pack("<Q", each)) for code, each in numbers])


def _block(kind: int, body: bytes, options: Iterable[Option] = ()) -> bytes:
    """A block with its length on both ends [3.1]."""
    written = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    end = [b"\0\0\0\0"] if written else []
    inner = b"".join([body, *written, *end])
    length = len(inner) + 12
    return struct.pack("<II", kind, length) + inner + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _text(comment: str) -> bytes:
    return comment.encode("utf-8", "backslashreplace")[:_MAX_OPTION]
