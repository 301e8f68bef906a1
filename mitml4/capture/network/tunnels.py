"""Tunnels that carry IP or Ethernet inside IP: where the inner packet begins.

IP in IP and 6in4 need no code here: their protocol number is the inner header's. A header that is
none gives the EtherType 0; one that is cut off raises IndexError.
"""

from __future__ import annotations

from typing import Final

from mitml4.capture.network.links import IPV4, IPV6, PPP, TRANSPARENT_ETHERNET, Payload

__all__ = ["esp", "gre", "has_tunnel_port", "is_tunnel", "udp"]

_NOTHING: Final = (0, 0)

_VXLAN: Final = {4789, 4790, 8472}
"""The last is what Linux takes by default."""
_GENEVE: Final = 6081
_GTP_U: Final = 2152
_TEREDO: Final = 3544
_L2TP: Final = 1701
_ESP: Final = 4500


_PORTS: Final = _VXLAN | {_GENEVE, _GTP_U, _TEREDO, _L2TP, _ESP}


_PORTS_ON_WIRE: Final = frozenset(port.to_bytes(2, "big") for port in _PORTS)


def is_tunnel(ports: frozenset[int]) -> bool:
    """Whether datagrams between these ports may carry packets."""
    return not _PORTS.isdisjoint(ports)


def has_tunnel_port(key: bytes) -> bool:
    """The same of the ports at the end of a datagram's key."""
    return key[-4:-2] in _PORTS_ON_WIRE or key[-2:] in _PORTS_ON_WIRE


def gre(packet: bytes, at: int) -> Payload:
    """RFC 2784 and 2890; version 1 is PPTP's (RFC 2637); 0x88be is ERSPAN."""
    flags, version = packet[at], packet[at + 1]
    kind = packet[at + 2] << 8 | packet[at + 3]
    has_checksum, has_key, has_sequence = flags & 0x80, flags & 0x20, flags & 0x10
    has_acknowledgement = version & 7 == 1 and version & 0x80
    optional = (has_checksum, has_key, has_sequence, has_acknowledgement)
    at += 4 + sum(4 for present in optional if present)
    if kind == 0x88BE:
        return TRANSPARENT_ETHERNET, at + (8 if has_sequence else 0)
    return kind, at


def udp(packet: bytes, at: int, end: int) -> Payload:
    """By either port; `at` is the UDP header, and `end` the end of what it carries."""
    ports = {packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3]}
    at += 8
    if _VXLAN & ports:
        return _vxlan(packet, at)
    if _GENEVE in ports:
        return _geneve(packet, at)
    if _GTP_U in ports:
        return _gtp_u(packet, at, end)
    if _TEREDO in ports:
        return _teredo(packet, at)
    if _L2TP in ports:
        return _l2tp(packet, at)
    if _ESP in ports:
        return esp(packet, at, end)
    return _NOTHING


def _vxlan(packet: bytes, at: int) -> Payload:
    """RFC 7348 §5: one flag, and Ethernet; with the next protocol: draft-ietf-nvo3-vxlan-gpe §3."""
    if packet[at] == 0x08:
        return TRANSPARENT_ETHERNET, at + 8
    if packet[at] == 0x0C:
        return {1: IPV4, 2: IPV6, 3: TRANSPARENT_ETHERNET}.get(packet[at + 3], 0), at + 8
    return _NOTHING


def _geneve(packet: bytes, at: int) -> Payload:
    """RFC 8926 §3.4: version 0, options in words of four."""
    if packet[at] >> 6:
        return _NOTHING
    return packet[at + 2] << 8 | packet[at + 3], at + 8 + 4 * (packet[at] & 0x3F)


def _gtp_u(packet: bytes, at: int, end: int) -> Payload:
    """3GPP TS 29.281 §5.1: version 1, message 255, and perhaps extension headers in a chain."""
    flags = packet[at]
    if flags >> 5 != 1 or packet[at + 1] != 0xFF:
        return _NOTHING
    at += 8
    if flags & 0x07:
        extension = packet[at + 3] if flags & 0x04 else 0
        at += 4
        while extension and at < end and packet[at]:
            length = 4 * packet[at]
            extension = packet[at + length - 1]
            at += length
    return {4: IPV4, 6: IPV6}.get(packet[at] >> 4, 0), at


def _teredo(packet: bytes, at: int) -> Payload:
    """RFC 4380 §5.1.1: an authentication header, an origin indication, then IPv6."""
    if packet[at : at + 2] == b"\0\x01":
        at += 13 + packet[at + 2] + packet[at + 3]
    if packet[at : at + 2] == b"\0\0":
        at += 8
    return (IPV6, at) if packet[at] >> 4 == 6 else _NOTHING


def _l2tp(packet: bytes, at: int) -> Payload:
    """RFC 2661 §3.1: a data message of version 2, with the fields that its flags announce."""
    flags, version = packet[at], packet[at + 1] & 0x0F
    if flags & 0x80 or version != 2:
        return _NOTHING
    at += 6 + (2 if flags & 0x40 else 0) + (4 if flags & 0x08 else 0)
    if flags & 0x02:
        at += 2 + (packet[at] << 8 | packet[at + 1])
    return PPP, at


_IPV4_HEADER: Final = 20
_ESP_TRAILER: Final = 2


def esp(packet: bytes, at: int, end: int) -> Payload:
    """RFC 4303 §2, in tunnel mode without encryption (RFC 2410). Nothing says that it is not
    encrypted but what would be an IPv4 header, so its length and checksum must be right."""
    at += 8
    header = packet[at : at + _IPV4_HEADER]
    if header[:1] != b"\x45" or len(header) < _IPV4_HEADER:
        return _NOTHING
    if not _IPV4_HEADER <= (header[2] << 8 | header[3]) <= end - at - _ESP_TRAILER:
        return _NOTHING
    total = sum(header[0::2]) * 256 + sum(header[1::2])
    return (IPV4, at) if total and total % 0xFFFF == 0 else _NOTHING
