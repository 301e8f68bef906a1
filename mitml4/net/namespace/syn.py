"""A TCP SYN as a packet: who asks for what, and the same packet fit to be sent again."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

from mitml4.address import Address

__all__ = ["Syn"]

_TCP: Final = 6
_V6_HEADER: Final = 40
_CHECKSUM_AT: Final = 16  # RFC 9293 §3.1
_SHORTEST_TCP: Final = 20
_ICMP: Final = 1
_ICMP_V6: Final = 58
_HOST_UNREACHABLE: Final = b"\x03\x01"  # RFC 792
_ADDRESS_UNREACHABLE: Final = b"\x01\x03"  # RFC 4443 §3.1
_HOPS: Final = 64


@dataclass(frozen=True, slots=True)
class Syn:
    """The first packet of a connection."""

    client: Address
    destination: Address
    packet: bytes
    """From the IP header on, its TCP checksum filled in."""

    @classmethod
    def parse(cls, packet: bytes) -> Syn | None:
        """None for what is no whole TCP packet (or has IPv6 extension headers)."""
        if len(packet) < _SHORTEST_TCP:
            return None
        if packet[0] >> 4 == 4:
            family, start, protocol = socket.AF_INET, (packet[0] & 15) * 4, packet[9]
            source, target = packet[12:16], packet[16:20]
        else:
            family, start, protocol = socket.AF_INET6, _V6_HEADER, packet[6]
            source, target = packet[8:24], packet[24:40]
        segment = packet[start:]
        if protocol != _TCP or len(segment) < _SHORTEST_TCP:
            return None
        ports = struct.unpack_from("!HH", segment)
        # Over the loopback interface the sender leaves the checksum to hardware that is not there.
        blank = segment[:_CHECKSUM_AT] + b"\0\0" + segment[_CHECKSUM_AT + 2 :]
        pseudo = source + target + struct.pack("!II", len(segment), _TCP)
        filled = struct.pack("!H", _checksum(pseudo + blank))
        return cls(
            Address(socket.inet_ntop(family, source), ports[0]),
            Address(socket.inet_ntop(family, target), ports[1]),
            packet[:start] + blank[:_CHECKSUM_AT] + filled + blank[_CHECKSUM_AT + 2 :],
        )

    def unreachable(self) -> bytes:
        """The packet by which the destination's router tells the client that it knows no way there:
        it quotes this one. (The kernel fills in what is zero of IPv4's header, raw(7).)"""
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
    """A message of ICMP: type and code, checksum, four unused bytes, what it is about."""
    checksum = _checksum(pseudo + kind + bytes(6) + quoted)
    return kind + struct.pack("!HI", checksum, 0) + quoted


def _checksum(data: bytes) -> int:
    """RFC 1071. The pseudo header of IPv4 gives the same sum in this order and width."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
