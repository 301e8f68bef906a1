"""The pcapng format, written: one section, in little-endian order, with times in nanoseconds.

Source: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-04.html, sections in brackets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from mitml4.capture.files.pcapng import (
    COMMENT,
    ENHANCED_PACKET,
    IF_TSRESOL,
    INTERFACE,
    SECRETS,
    SECTION,
    TLS_KEY_LOG,
)

__all__ = ["interface", "packet", "secrets", "section", "statistics"]

_STATISTICS: Final = 5  # [4.6]

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
    """The first block of a file. `application` names the program that writes it."""
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
) -> tuple[bytes, bytes, bytes]:
    """A packet of `length` bytes, of which `data` was captured. `time_ns`: since the epoch.

    In three parts, of which the middle is `data` itself, so that nothing is copied.
    """
    flags = struct.pack("<I", _OUTBOUND if outbound else _INBOUND)
    options = [(COMMENT, _text(comment))] if comment else []
    behind = bytes(-len(data) % 4) + _options([*options, (_FLAGS, flags)])
    whole = 32 + len(data) + len(behind)
    high, low = time_ns >> 32, time_ns & 0xFFFFFFFF
    head = struct.pack("<7I", ENHANCED_PACKET, whole, interface, high, low, len(data), length)
    return head, data, behind + struct.pack("<I", whole)


def secrets(lines: Iterable[bytes]) -> bytes:
    """TLS secrets in the key log's format, for the packets that follow [4.7]."""
    data = b"".join(line + b"\n" for line in lines)
    return _block(SECRETS, struct.pack("<II", TLS_KEY_LOG, len(data)) + _padded(data))


def statistics(interface: int, time_ns: int, *, received: int, dropped: int) -> bytes:
    """How many packets an interface had, and how many were lost because they came too fast."""
    head = struct.pack("<III", interface, time_ns >> 32, time_ns & 0xFFFFFFFF)
    numbers = [(_RECEIVED, received), (_DROPPED, dropped)]
    return _block(_STATISTICS, head, [(code, struct.pack("<Q", each)) for code, each in numbers])


def _block(kind: int, body: bytes, options: Sequence[Option] = ()) -> bytes:
    """A block with its length on both ends [3.1]."""
    inner = body + _options(options)
    length = len(inner) + 12
    return struct.pack("<II", kind, length) + inner + struct.pack("<I", length)


def _options(options: Sequence[Option]) -> bytes:
    """The options, and the one that ends their list [3.5]."""
    written = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(written) + bytes(4) if written else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _text(comment: str) -> bytes:
    return comment.encode("utf-8", "backslashreplace")[:_MAX_OPTION]
