"""The short way of most packets: those that only move a number.

Nearly all packets of a long capture are the next of a stream that nobody has to see. Their headers
are read where they stand, without a copy and without an object, as far as it takes to be sure of
that: a link layer whose payload begins at a fixed place (with a VLAN tag or without), IP without
options or fragments, TCP, and the sequence number that comes next. All others take the long way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, TypeAlias

from mitml4.capture.packets import FIN, RST, SYN
from mitml4.capture.pcap import Packet
from mitml4.capture.reassembly import MASK, Half

__all__ = ["skim"]

_Place: TypeAlias = tuple[int, int, int]
"""Where a frame says what it carries, as start and end, and where that begins."""

_BY_VERSION: Final = (0, 1, 0)
_PLACES: Final[dict[int, _Place]] = {
    0: (4, 5, 4),  # BSD loopback
    1: (12, 14, 14),  # Ethernet
    12: _BY_VERSION,
    14: _BY_VERSION,
    101: _BY_VERSION,
    108: (4, 5, 4),
    113: (14, 16, 16),  # Linux cooked
    228: _BY_VERSION,
    229: _BY_VERSION,
    276: (0, 2, 20),  # Linux cooked, version 2
}
_NOWHERE: Final = (0, 0, 0)

_IPV4: Final = 4
_IPV6: Final = 6
_VLAN: Final = 1
_KINDS: Final = {
    b"\x08\x00": _IPV4,
    b"\x86\xdd": _IPV6,
    b"\x81\x00": _VLAN,
    b"\x45": _IPV4,
    **dict.fromkeys((bytes([first]) for first in range(0x60, 0x70)), _IPV6),
}

# IPv4 without options, TCP: version, total length, fragment and protocol, sequence number, data
# offset and flags; addresses and ports stand between.
_read_v4: Final = Struct(">BxH2xI14xI4xH").unpack_from
_SIZE_V4: Final = 34
_PLAIN_V4: Final = 0x45
_FRAGMENT_AND_PROTOCOL: Final = 0x3FFF00FF
# IPv6 without extension headers, TCP: version, payload length, next header, and the same.
_read_v6: Final = Struct(">B3xHB37xI4xH").unpack_from
_SIZE_V6: Final = 54
_TCP: Final = 6

_LEAST_OFFSET: Final = 0x5000
_SPECIAL: Final = FIN | SYN | RST


def skim(packets: Iterable[Packet], halves: dict[bytes, Half]) -> Iterator[Packet]:
    """The packets that somebody has to look at; what the others change in `halves` is changed."""
    known, place = -1, _NOWHERE
    for packet in packets:
        time_s, link_type, data, start, end = packet
        if link_type != known:
            known, place = link_type, _PLACES.get(link_type, _NOWHERE)
        kind_start, kind_end, at = place
        kind = _KINDS.get(data[start + kind_start : start + kind_end])
        at += start
        if kind == _VLAN:
            kind = _KINDS.get(data[at + 2 : at + 4])
            at += 4
        half = None
        if kind == _IPV4 and at + _SIZE_V4 <= end:
            version, length, fragment, seq, flags = _read_v4(data, at)
            if version == _PLAIN_V4 and fragment & _FRAGMENT_AND_PROTOCOL == _TCP:
                half = halves.get(data[at + 12 : at + 24])
                length -= 20
        elif kind == _IPV6 and at + _SIZE_V6 <= end:
            version, length, protocol, seq, flags = _read_v6(data, at)
            if version >> 4 == _IPV6 and protocol == _TCP:
                half = halves.get(data[at + 8 : at + 44])
        if (
            half is not None
            and flags >= _LEAST_OFFSET
            and not flags & _SPECIAL
            and half.position <= (end := half.position + length - (flags >> 12 << 2)) <= half.free
            and (seq - half.position) & MASK == half.origin
        ):
            half.position = end
            half.flow.last_s = time_s
        else:
            yield packet
