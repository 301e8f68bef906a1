"""Packets to segments of TCP and datagrams of UDP: down through link layer, tags, IP and tunnels.

Whatever its headers are, a packet that has a segment gives it up here. Most packets are TCP over
IP without any option in between, and go a shorter way (fast_path.py).
"""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import suppress
from struct import Struct
from typing import Final, TypeAlias

from mitml4.capture.network import tunnels
from mitml4.capture.network.fragments import Fragments
from mitml4.capture.network.links import IPV4, IPV6, LINKS, inside

__all__ = ["ACK", "FIN", "RST", "SYN", "Datagram", "Dissector", "Segment", "Unit"]

Segment: TypeAlias = tuple[bytes, int, int, int, bytes, int]
"""Key, sequence number, acknowledgement number, flags, payload as captured, and its length on the
wire, which is more where the capture cut the packet short. The key is source and destination
address, then the two ports, as on the wire."""

Datagram: TypeAlias = tuple[bytes, bytes, int]
"""The same of UDP: key, payload as captured, and its length on the wire."""

Unit: TypeAlias = Segment | Datagram

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

_TCP: Final = 6
_UDP: Final = 17
_GRE: Final = 47
_ESP: Final = 50
_IP_IN_IP: Final = {4: IPV4, 41: IPV6}

_FRAGMENT: Final = 44
_AUTHENTICATION: Final = 51
_EXTENSIONS: Final = frozenset({0, 43, 60, 135, 139, 140})
"""Extension headers that begin with the next header and their length in eights (RFC 8200 §4)."""

_MAX_HEADERS: Final = 32
"""More extension headers, or tunnels in each other, are no honest packet."""

_tcp: Final = Struct(">4sIIBB").unpack_from
_udp: Final = Struct(">4sH").unpack_from
_UDP_HEAD: Final = 8


class Dissector:
    """Finds the segment or the datagram in a packet, and counts by reason the packets without."""

    def __init__(self, *, tunnels: bool = True) -> None:
        """`tunnels`: whether to look into IP-in-IP, GRE, VXLAN, Geneve, GTP-U, Teredo,
        L2TP, and ESP that is not encrypted."""
        self.tunnels = tunnels
        self.carriers: list[Datagram] = []
        """Datagrams whose payload was looked into, outermost first, for the caller to take."""
        self.skipped: Counter[str] = Counter()
        self._fragments = Fragments()

    def unit(self, link_type: int, packet: bytes) -> Unit | None:
        """The segment or datagram, or None. Never raises, whatever the bytes."""
        link = LINKS.get(link_type)
        if link is None:
            return self._skip(f"link type {link_type}")
        try:
            kind, at = inside(packet, link(packet, 0))
            return self._network(kind, packet, at, 0)
        except (IndexError, struct.error):
            return self._skip("cut short")

    def _skip(self, reason: str) -> Unit | None:
        self.skipped[reason] += 1
        return None

    def _network(self, kind: int, packet: bytes, at: int, depth: int) -> Unit | None:
        if depth > _MAX_HEADERS:
            return self._skip("nested too deeply")
        if kind == IPV4 and packet[at] >> 4 == 4:
            return self._ipv4(packet, at, depth)
        if kind == IPV6 and packet[at] >> 4 == 6:
            return self._ipv6(packet, at, depth)
        return self._skip("not IP")

    def _ipv4(self, packet: bytes, at: int, depth: int) -> Unit | None:
        """RFC 791 §3.1. A total length of 0 is what offloading leaves of one that was too long."""
        start = at + (packet[at] & 15) * 4
        total, identification, fragment = struct.unpack_from(">2xHHH", packet, at)
        end = at + total if total else len(packet)
        protocol, addresses = packet[at + 9], packet[at + 12 : at + 20]
        if fragment & 0x3FFF:
            key = addresses + bytes([protocol]) + identification.to_bytes(2, "big")
            return self._fragment(
                key,
                (fragment & 0x1FFF) * 8,
                packet[start:end],
                more=bool(fragment & 0x2000),
                protocol=protocol,
                addresses=addresses,
                depth=depth,
            )
        return self._transport(protocol, addresses, packet, start, end, depth)

    def _ipv6(self, packet: bytes, at: int, depth: int) -> Unit | None:
        """RFC 8200 §3. A payload length of 0 is a jumbogram's (RFC 2675), or offloading's."""
        (length,) = struct.unpack_from(">4xH", packet, at)
        end = at + 40 + length if length else len(packet)
        header, addresses = packet[at + 6], packet[at + 8 : at + 40]
        at += 40
        for _ in range(_MAX_HEADERS):
            if header in _EXTENSIONS:
                header, at = packet[at], at + 8 + packet[at + 1] * 8
            elif header == _AUTHENTICATION:  # RFC 4302 §2.2: in fours, minus two
                header, at = packet[at], at + 8 + packet[at + 1] * 4
            elif header == _FRAGMENT:
                protocol, offset, identification = struct.unpack_from(">BxH4s", packet, at)
                return self._fragment(
                    addresses + identification,
                    offset & 0xFFF8,
                    packet[at + 8 : end],
                    more=bool(offset & 1),
                    protocol=protocol,
                    addresses=addresses,
                    depth=depth,
                )
            else:
                return self._transport(header, addresses, packet, at, end, depth)
        return self._skip("nested too deeply")

    def _fragment(
        self,
        key: bytes,
        offset: int,
        data: bytes,
        *,
        more: bool,
        protocol: int,
        addresses: bytes,
        depth: int,
    ) -> Unit | None:
        self.skipped["fragment"] += 1
        whole = self._fragments.add(key, offset, data, more=more)
        if whole is None:
            return None
        return self._transport(protocol, addresses, whole, 0, len(whole), depth + 1)

    def _transport(
        self, protocol: int, addresses: bytes, packet: bytes, at: int, end: int, depth: int
    ) -> Unit | None:
        if protocol == _TCP:
            ports, seq, ack, words, flags = _tcp(packet, at)
            start = at + (words >> 4) * 4
            if words < 0x50 or start > end:
                return self._skip("broken TCP header")
            return addresses + ports, seq, ack, flags, packet[start:end], end - start
        datagram = _datagram(addresses, packet, at, end) if protocol == _UDP else None
        if self.tunnels:
            kind, inner = self._tunnel(protocol, packet, at, end)
            if kind:
                if datagram:
                    self.carriers.append(datagram)
                kind, inner = inside(packet, (kind, inner))
                return self._network(kind, packet, inner, depth + 1)
        return datagram or self._skip("neither TCP nor UDP")

    def _tunnel(self, protocol: int, packet: bytes, at: int, end: int) -> tuple[int, int]:
        if protocol in _IP_IN_IP:
            return _IP_IN_IP[protocol], at
        if protocol == _GRE:
            return tunnels.gre(packet, at)
        if protocol == _ESP:
            return tunnels.esp(packet, at, end)
        if protocol == _UDP:
            with suppress(IndexError):  # too short for the tunnel that has this port
                return tunnels.udp(packet, at, end)
        return 0, 0


def _datagram(addresses: bytes, packet: bytes, at: int, end: int) -> Datagram:
    """RFC 768. A length of 0 is a jumbogram's, or offloading's."""
    ports, length = _udp(packet, at)
    start = at + _UDP_HEAD
    whole = max((at + length if length else end) - start, 0)
    return addresses + ports, packet[start : min(start + whole, end)], whole
