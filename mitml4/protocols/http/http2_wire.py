"""HTTP/2 on the wire: the numbers of RFC 9113, and the form of a frame."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from mitml4.errors import ProtocolError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # §3.4
HEADER: Final = struct.Struct(">HBBBL")  # §4.1: the length is of 24 bits
HEADER_SIZE: Final = HEADER.size
ID: Final = 0x7FFFFFFF
"""§4.1: the highest bit of a stream identifier is reserved."""
MIN_MAX_FRAME: Final = 16384
"""§4.2: every receiver takes frames of this size."""
INITIAL_WINDOW: Final = 65535  # §6.9.2

# §6
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
GOAWAY, WINDOW_UPDATE, CONTINUATION = 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
PRIORITY_SIZE: Final = 5  # §6.3
RST_STREAM_SIZE: Final = 4  # §6.4
PROMISED_SIZE: Final = 4  # §6.6
GOING_AWAY: Final = struct.Struct(">LL")  # §6.8
SETTING: Final = struct.Struct(">HL")  # §6.5.1
# §6.5.2
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5


class ErrorCode(IntEnum):
    """§7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Http2Error(ProtocolError):
    """A connection error (§5.4.1)."""

    def __init__(self, message: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(f"HTTP/2: {message}")
        self.code = code


def frame_bytes(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of a frame without its padding (§6.1). Raises Http2Error."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error("padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
