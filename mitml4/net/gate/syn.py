"""A TCP SYN as a packet: its addresses, and the packet in a form that can be sent again."""

from __future__ import annotations

import socket
import struct
from typing import Final

from mitml4.address import Address
from mitml4.dataclass import dataclass

__all__ = ["LONGEST_SYN", "Syn", "checksum"]

LONGEST_SYN: Final = 256
"""A packet's first bytes that are enough to parse it: IP and TCP headers with their options."""

_TCP: Final = 6
_V4_HEADER, _V6_HEADER, _TCP_HEADER = 20, 40, 20
_V4_CHECKSUM, _TCP_CHECKSUM = slice(10, 12), slice(16, 18)  # RFC 791 §3.1, RFC 9293 §3.1

_ICMP, _ICMP_V6 = 1, 58
_HOST_UNREACHABLE: Final = b"\x03\x01"  # RFC 792
_ADDRESS_UNREACHABLE: Final = b"\x01\x03"  # RFC 4443 §3.1
_HOPS: Final = 64
_ADDED_BYTES: Final = 1024

_OPTIONS: Final = {0, 60}  # RFC 8200 §4.3, §4.6: hop-by-hop options, destination options
_FRAGMENT: Final = 44  # RFC 8200 §4.5; an unfragmented packet may contain it too (RFC 6946)
_FRAGMENT_OFFSET_OR_MORE: Final = 0xFFF9


@dataclass(frozen=True, slots=True)
class Syn:
    """The first packet of a connection."""

    client: Address
    destination: Address
    packet: bytes
    """The IP header (without the extension headers of IPv6) and the TCP header, with correct
    lengths and checksums. Data, as in TCP Fast Open, is left out: the client sends it again."""
    untranslated: bytes
    """The bytes that address translation does not change."""

    @classmethod
    def parse(cls, packet: bytes) -> Syn | None:
        """None if it is not a TCP packet, or is cut within its headers."""
        try:
            return _parse_v4(packet) if packet[0] >> 4 == 4 else _parse_v6(packet)
        except (IndexError, struct.error):
            return None

    def unreachable(self) -> bytes:
        """The packet in which the destination's router tells the client that there is no route. It
        quotes this packet. (The kernel fills in zero fields of the IPv4 header, raw(7).)"""
        if self.destination.is_v6:
            source, target = self.packet[24:40], self.packet[8:24]
            pseudo = source + target + struct.pack("!II", 8 + len(self.packet), _ICMP_V6)
            message = _with_checksum(_ADDRESS_UNREACHABLE, self.packet, pseudo)
            header = struct.pack("!IHBB", 6 << 28, len(message), _ICMP_V6, _HOPS)
            return header + source + target + message
        message = _with_checksum(_HOST_UNREACHABLE, self.packet)
        header = struct.pack("!BxHHHBBH", 0x45, 20 + len(message), 0, 0, _HOPS, _ICMP, 0)
        return header + self.packet[16:20] + self.packet[12:16] + message


def _with_checksum(kind: bytes, quoted: bytes, pseudo: bytes = b"") -> bytes:
    """An ICMP message: type and code, checksum, four unused bytes, the quoted packet."""
    return kind + checksum(pseudo + kind + bytes(6) + quoted) + bytes(4) + quoted


def _parse_v4(packet: bytes) -> Syn | None:
    start = (packet[0] & 15) * 4
    if start < _V4_HEADER or packet[9] != _TCP:
        return None
    head = bytearray(packet[:start])
    segment = _tcp_header(packet, start)
    if segment is None:
        return None
    struct.pack_into("!H", head, 2, start + len(segment))
    head[_V4_CHECKSUM] = b"\0\0"
    head[_V4_CHECKSUM] = checksum(bytes(head))
    return _syn(socket.AF_INET, packet[12:16], packet[16:20], bytes(head), segment)


def _parse_v6(packet: bytes) -> Syn | None:
    protocol, start = packet[6], _V6_HEADER
    while protocol in _OPTIONS or protocol == _FRAGMENT:
        if protocol == _FRAGMENT:
            (offset_and_more,) = struct.unpack_from("!H", packet, start + 2)
            if offset_and_more & _FRAGMENT_OFFSET_OR_MORE:
                return None
            protocol, start = packet[start], start + 8
        else:
            protocol, start = packet[start], start + (packet[start + 1] + 1) * 8
    if protocol != _TCP:
        return None
    segment = _tcp_header(packet, start)
    if segment is None:
        return None
    head = bytearray(packet[:_V6_HEADER])
    struct.pack_into("!HB", head, 4, len(segment), _TCP)
    return _syn(socket.AF_INET6, packet[8:24], packet[24:40], bytes(head), segment)


def _tcp_header(packet: bytes, start: int) -> bytes | None:
    length = (packet[start + 12] >> 4) * 4
    if length < _TCP_HEADER or len(packet) < start + length:
        return None
    return packet[start : start + length]


def _syn(family: int, source: bytes, target: bytes, head: bytes, tcp: bytes) -> Syn:
    client_port, port = struct.unpack_from("!HH", tcp)
    # On loopback, the sender leaves the checksum to hardware offload, which does not happen.
    segment = bytearray(tcp)
    segment[_TCP_CHECKSUM] = b"\0\0"
    pseudo = source + target + struct.pack("!II", len(segment), _TCP)
    segment[_TCP_CHECKSUM] = checksum(pseudo + segment)
    return Syn(
        Address(socket.inet_ntop(family, source), client_port),
        Address(socket.inet_ntop(family, target), port),
        head + segment,
        tcp[4:16] + tcp[18:],
    )


def checksum(*parts: bytes | memoryview) -> bytes:
    """RFC 1071, of parts in a row, of which only the last may have an odd length. The IPv4 pseudo
    header gives the same sum in this order and width.

    To add 16-bit words with end-around carry is to add modulo 65535, in which 65536 is 1: so the
    words need not be taken one by one.
    """
    total = 0
    for part in parts:
        for at in range(0, len(part), _ADDED_BYTES):
            piece = part[at : at + _ADDED_BYTES]
            total += int.from_bytes(piece) << 8 * (len(piece) % 2)
    return (-total % 0xFFFF).to_bytes(2)
