"""Packets to segments and datagrams, as far as somebody has to see them: the short way of most.

Nearly all packets of a long capture are the next of a stream that nobody has to see, and only move
a number. Their headers are read where they stand, without a copy and without an object, as far as
it takes to be sure of that: a link layer whose payload begins at a fixed place (with a VLAN tag or
without), IP without options or fragments, TCP, and the sequence number that comes next. The others
of this common form are segments as they stand, or datagrams of UDP, which are only counted if they
belong to a flow that nobody has to see any more. What has another form goes through the dissector,
and so do datagrams that may carry packets. Packets of flows that another process follows
(sharing.py) are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Any, Final, TypeAlias

from mitml4.capture.agenda import Agenda
from mitml4.capture.datagrams import DatagramHalf
from mitml4.capture.flow import MASK, Half
from mitml4.capture.network.dissector import FIN, RST, SYN, Datagram, Dissector, Segment
from mitml4.capture.network.tunnels import has_tunnel_port
from mitml4.capture.packet import MAX_BLOCK, Packet
from mitml4.capture.sharing import Share

__all__ = ["Step", "fast_path"]

Step: TypeAlias = tuple[int, float, Segment | Datagram | None]
"""The number of a packet, its time, and what somebody has to look at: None where only the time has
come for what is on the agenda."""

_IPV4: Final = b"\x08\x00"
_IPV6: Final = b"\x86\xdd"
_VLAN: Final = b"\x81\x00"
_PLAIN_V4: Final = 0x45
_FRAGMENT_AND_PROTOCOL: Final = 0x3FFF00FF
_TCP: Final = 6
_UDP: Final = 17
_UDP_HEAD: Final = 8
_MIN_OFFSET: Final = 0x5000
_SPECIAL: Final = FIN | SYN | RST
_ACKNOWLEDGEMENT: Final = Struct(">8xI").unpack_from


class _Layout:
    """Where the headers of a frame stand, if they are of the common form."""

    def __init__(self, network: int, kind: int | None = None) -> None:
        """`network`: where IP begins; `kind`: where its EtherType stands, None where its version
        has to say which one it is."""
        link = f">{network}x0s" if kind is None else f">{kind}x2s{network - kind - 2}x"
        self.v4_kind = b"" if kind is None else _IPV4
        self.v6_kind = b"" if kind is None else _IPV6
        # EtherType, version, total length, fragment and protocol, key, sequence number, data offset
        # and flags.
        v4 = Struct(f"{link}BxH2xI2x12sI4xH")
        # The same with payload length and next header; the version is read by the one above.
        v6 = Struct(f">{network}x4xHBx36sI4xH")
        self.read_v4: Callable[[bytes, int], tuple[Any, ...]] = v4.unpack_from
        self.read_v6: Callable[[bytes, int], tuple[Any, ...]] = v6.unpack_from
        self.size_v4 = v4.size
        self.size_v6 = v6.size
        # Where the transport's header stands, if there is no VLAN tag.
        self.end_v4 = network + 20
        self.end_v6 = network + 40


_RAW: Final = _Layout(0)
_NOWHERE: Final = _Layout(MAX_BLOCK)
"""Of all other link layers: no packet is as long."""
_LAYOUTS: Final[dict[int, _Layout]] = {
    0: _Layout(4),  # BSD loopback
    1: _Layout(14, 12),  # Ethernet
    12: _RAW,
    14: _RAW,
    101: _RAW,
    108: _Layout(4),
    113: _Layout(16, 14),  # Linux cooked
    228: _RAW,
    229: _RAW,
    276: _Layout(20, 0),  # Linux cooked, version 2
}


def fast_path(
    packets: Iterable[Packet],
    halves: dict[bytes, Half],
    datagram_halves: dict[bytes, DatagramHalf],
    dissector: Dissector,
    *,
    agenda: Agenda | None = None,
    share: Share | None = None,
) -> Iterator[Step]:
    """The segments and datagrams that somebody has to look at; what the others change in the halves
    is changed. `share`: which flows are followed here."""
    agenda = agenda or Agenda()
    share = share or Share()
    foreign, is_foreign = share.foreign, share.is_foreign
    known, layout = -1, _NOWHERE
    for number, (time_s, link_type, data, start, end) in enumerate(packets):
        if time_s >= agenda.due_s:
            yield number, time_s, None
        if link_type != known:
            known, layout = link_type, _LAYOUTS.get(link_type, _NOWHERE)
            read_v4, v4_kind, size_v4 = layout.read_v4, layout.v4_kind, layout.size_v4
            read_v6, v6_kind, size_v6 = layout.read_v6, layout.v6_kind, layout.size_v6
        protocol, network = 0, start
        while network + size_v4 <= end:
            kind, version, length, fragment, key, seq, flags = read_v4(data, network)
            if kind == v4_kind and version == _PLAIN_V4:
                protocol = fragment & _FRAGMENT_AND_PROTOCOL
                length -= 20
            elif kind == v6_kind and version >> 4 == 6 and network + size_v6 <= end:
                length, protocol, key, seq, flags = read_v6(data, network)
            elif kind == _VLAN and network == start:
                network += 4
                continue
            break
        if protocol == _TCP:
            if key in foreign:
                continue
            length -= flags >> 12 << 2
            if length >= 0 and flags >= _MIN_OFFSET:
                stream = halves.get(key)
                if stream is not None:
                    position = stream.position + length
                    if (
                        position <= stream.free
                        and (seq + length - position) & MASK == stream.origin
                        and not flags & _SPECIAL
                    ):
                        stream.position = position
                        stream.flow.last_s = time_s
                        continue
                at = network + (layout.end_v4 if version == _PLAIN_V4 else layout.end_v6)
                (ack,) = _ACKNOWLEDGEMENT(data, at)
                at += flags >> 12 << 2
                payload = data[at : min(at + length, end)] if length else b""
                yield number, time_s, (key, seq, ack, flags & 0xFF, payload, length)
                continue
        elif protocol == _UDP:
            size = seq >> 16  # of the datagram, with its header
            half = datagram_halves.get(key)
            if half is not None and half.free and size >= _UDP_HEAD:
                half.count += size - _UDP_HEAD
                half.flow.last_s = time_s
                continue
            if _UDP_HEAD <= size <= length and not (dissector.tunnels and has_tunnel_port(key)):
                if half is not None or not is_foreign(key):
                    at = network + (layout.end_v4 if version == _PLAIN_V4 else layout.end_v6)
                    payload = data[at + _UDP_HEAD : min(at + size, end)]
                    yield number, time_s, (key, payload, size - _UDP_HEAD)
                continue
        unit = dissector.unit(link_type, data[start:end])
        for carrier in dissector.carriers:
            yield number, time_s, carrier
        dissector.carriers.clear()
        if unit is not None:
            yield number, time_s, unit
