"""Netlink messages of the kernel's, as they are read."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from mitml4.net.gate.nflog import LoggedPacket, logged_packets


def attribute(kind: int, value: bytes) -> bytes:
    packed = struct.pack("=HH", 4 + len(value), kind) + value
    return packed + b"\0" * (-len(packed) % 4)


def message(kind: int, *attributes: bytes) -> bytes:
    body = struct.pack("!BBH", 2, 0, 1) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


PACKET = 4 << 8
MARK, INDEV, OUTDEV, PAYLOAD, PREFIX = 2, 4, 5, 9, 10


def test_packets_are_found_among_what_else_is_said_of_them() -> None:
    data = (
        message(
            PACKET,
            attribute(PREFIX, b"leaves\0"),
            attribute(PAYLOAD, b"first"),
            attribute(MARK, b"\0\0\x12\x34"),
            attribute(INDEV, b"\0\0\0\2"),
            attribute(OUTDEV, b"\0\0\0\3"),
        )
        + message(3, b"")
        + message(PACKET, attribute(PAYLOAD, b"second"))
    )
    assert list(logged_packets(data)) == [
        LoggedPacket(b"first", b"leaves", 0x1234, entered_by=2, leaves_by=3),
        LoggedPacket(b"second"),
    ]


@given(st.binary(max_size=100), st.integers(0, 60))
def test_reading_ends_whatever_the_bytes_are(data: bytes, cut: int) -> None:
    list(logged_packets(data))
    list(logged_packets(message(PACKET, attribute(PAYLOAD, b"packet"))[:cut] + data))
