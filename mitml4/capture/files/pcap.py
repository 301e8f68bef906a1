"""The classic pcap format: one header, then packets with a 16-byte header each.

Source: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-06.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from mitml4.capture.files.source import Source
from mitml4.capture.packet import MAX_BLOCK, Packet

__all__ = ["MAGICS", "read_pcap"]

MAGICS: Final = {
    bytes.fromhex("a1b2c3d4"): (">", 1_000_000),
    bytes.fromhex("d4c3b2a1"): ("<", 1_000_000),
    bytes.fromhex("a1b23c4d"): (">", 1_000_000_000),
    bytes.fromhex("4d3cb2a1"): ("<", 1_000_000_000),
}
"""The first four bytes: byte order, and ticks per second."""

_HEADER: Final = 24
_LINK_TYPE_MASK: Final = 0x03FFFFFF  # the bits above say how long the frame check sequence is


def read_pcap(source: Source) -> Iterator[Packet]:
    """Every packet. Raises CaptureError at the first that is broken or cut off."""
    if not source.more(_HEADER):
        raise source.error("the file ends inside its header")
    order, ticks = MAGICS[source.data[:4]]
    link_type = Struct(f"{order}I").unpack_from(source.data, 20)[0] & _LINK_TYPE_MASK
    unpack = Struct(f"{order}III").unpack_from
    source.at = _HEADER
    while source.more(16):
        data, at, size = source.data, source.at, len(source.data)
        end, last = at, size - 16
        while at <= last:
            seconds, fraction, length = unpack(data, at)
            start = at + 16
            end = start + length
            if end > size:
                break
            yield seconds + fraction / ticks, link_type, data, start, end
            at = end
        source.at = at
        if end - at > MAX_BLOCK:
            raise source.error(f"a packet of {end - at - 16} bytes")
        if end > at and not source.more(end - at):
            raise source.error("the file ends inside a packet")
    source.finish("the file ends inside a packet's header")
