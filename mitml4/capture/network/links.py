"""Link layers: where in a frame the network layer begins, and which one it is.

A header is read by a function from the frame and an offset to an EtherType and a new offset; a
frame that is too short raises IndexError or struct.error, one that carries something else gives
the EtherType 0. `inside` strips the headers that may stand between link and network.
Link types: https://www.tcpdump.org/linktypes.html.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

__all__ = ["ETHERNET", "IPV4", "IPV6", "LINKS", "PPP", "TRANSPARENT_ETHERNET", "Payload", "inside"]

Payload: TypeAlias = tuple[int, int]
"""An EtherType (0: nothing that is read here), and the offset of what it says."""

ETHERNET: Final = 1

IPV4: Final = 0x0800
IPV6: Final = 0x86DD
TRANSPARENT_ETHERNET: Final = 0x6558  # RFC 1701: a whole frame, as GRE and its kin carry it
PPP: Final = 0x880B

_NOTHING: Final = (0, 0)
_MAX_SHIMS: Final = 16


def _u16(frame: bytes, at: int) -> int:
    return frame[at] << 8 | frame[at + 1]


def _type_or_length(frame: bytes, at: int) -> Payload:
    """IEEE 802.3 §3.2.6: up to 1500 it is a length, and LLC follows."""
    value = _u16(frame, at)
    return (value, at + 2) if value > 1500 else _llc(frame, at + 2)


def _llc(frame: bytes, at: int) -> Payload:
    """IEEE 802.2 with SNAP (RFC 1042), or with the SAP that is assigned to IP."""
    if frame[at : at + 3] == b"\xaa\xaa\x03":
        return _u16(frame, at + 6), at + 8
    if frame[at : at + 3] == b"\x06\x06\x03":
        return IPV4, at + 3
    return _NOTHING


def _ethernet(frame: bytes, at: int) -> Payload:
    return _type_or_length(frame, at + 12)


def _ip(frame: bytes, at: int) -> Payload:
    """By the version that the first nibble says."""
    return {4: IPV4, 6: IPV6}.get(frame[at] >> 4, 0), at


def _loopback(frame: bytes, at: int) -> Payload:
    """BSD: an address family in the byte order and numbering of the capturing system."""
    return _ip(frame, at + 4)


def _ppp(frame: bytes, at: int) -> Payload:
    """RFC 1661 §2, with or without the header of RFC 1662 §3.1; protocols may be compressed."""
    if frame[at : at + 2] in (b"\x0f\x00", b"\x8f\x00"):
        return _cisco_hdlc(frame, at)  # some systems give PPP as the type of any serial line
    if frame[at : at + 2] == b"\xff\x03":
        at += 2
    short = frame[at] & 1
    protocol = frame[at] if short else _u16(frame, at)
    return _PPP_PROTOCOLS.get(protocol, 0), at + (1 if short else 2)


_PPP_PROTOCOLS: Final = {0x0021: IPV4, 0x0057: IPV6, 0x0281: 0x8847}


def _ppp_with_direction(frame: bytes, at: int) -> Payload:
    return _ppp(frame, at + 1)


def _pppoe(frame: bytes, at: int) -> Payload:
    """RFC 2516 §4; code 0 is a session packet."""
    return _ppp(frame, at + 6) if frame[at + 1] == 0 else _NOTHING


def _cisco_hdlc(frame: bytes, at: int) -> Payload:
    return _u16(frame, at + 2), at + 4


def _linux_cooked(frame: bytes, at: int) -> Payload:
    return _u16(frame, at + 14), at + 16


def _linux_cooked_v2(frame: bytes, at: int) -> Payload:
    return _u16(frame, at), at + 20


def _fddi(frame: bytes, at: int) -> Payload:
    return _llc(frame, at + 13)


def _arcnet(frame: bytes, at: int) -> Payload:
    """Linux's header, with the offset field; system codes of RFC 1051 and RFC 1201."""
    system = frame[at + 4]
    if system == 0xF0:
        return IPV4, at + 5
    return ({0xD4: IPV4, 0xC4: IPV6}.get(system, 0), at + 8)


def _ieee80211(frame: bytes, at: int) -> Payload:
    """Data frames in the clear: 24 bytes, 6 for a fourth address, 2 for QoS (IEEE 802.11 §9.2)."""
    control, flags = frame[at], frame[at + 1]
    data, null, protected = control & 0x0C == 0x08, control & 0x40, flags & 0x40
    if not data or null or protected:
        return _NOTHING
    length = 24 + (6 if flags & 0x03 == 0x03 else 0) + (2 if control & 0x80 else 0)
    return _llc(frame, at + length)


def _radiotap(frame: bytes, at: int) -> Payload:
    return _ieee80211(frame, at + frame[at + 2] + (frame[at + 3] << 8))


def _ppi(frame: bytes, at: int) -> Payload:
    length, link_type = frame[at + 2] + (frame[at + 3] << 8), frame[at + 4]
    inner = LINKS.get(link_type)
    return inner(frame, at + length) if inner and inner is not _ppi else _NOTHING


def _nflog(frame: bytes, at: int) -> Payload:
    """Linux netfilter: TLVs in the byte order of the host; 9 is the packet."""
    order = "<" if frame[at + 5] == 0 else ">"
    at += 4
    while True:
        length, kind = struct.unpack_from(f"{order}HH", frame, at)
        if kind & 0x7FFF == 9:
            return _ip(frame, at + 4)
        if length < 4:
            return _NOTHING
        at += length + -length % 4


def _pflog(frame: bytes, at: int) -> Payload:
    """OpenBSD's firewall: the length of the header is its first byte, without the padding."""
    return _ip(frame, at + frame[at] + -frame[at] % 4)


def _mpacket(frame: bytes, at: int) -> Payload:
    """IEEE 802.3br: a preamble of eight bytes; only whole (express) frames are read."""
    return _ethernet(frame, at + 8)


LINKS: Final[dict[int, Callable[[bytes, int], Payload]]] = {
    0: _loopback,
    ETHERNET: _ethernet,
    9: _ppp,
    10: _fddi,
    12: _ip,  # raw IP, as some systems number it
    14: _ip,
    50: _ppp,
    51: _pppoe,
    101: _ip,
    104: _cisco_hdlc,
    105: _ieee80211,
    108: _loopback,
    113: _linux_cooked,
    117: _pflog,
    127: _radiotap,
    129: _arcnet,
    192: _ppi,
    204: _ppp_with_direction,
    228: _ip,
    229: _ip,
    239: _nflog,
    274: _mpacket,
    276: _linux_cooked_v2,
}


def _vlan(frame: bytes, at: int) -> Payload:
    return _type_or_length(frame, at + 2)


def _mpls(frame: bytes, at: int) -> Payload:
    """RFC 3032: labels down to the bottom of the stack; what follows has to be guessed (§3.6)."""
    while not frame[at + 2] & 1:
        at += 4
    at += 4
    if frame[at] >> 4 == 0:  # RFC 4385: the control word of a pseudowire, mostly Ethernet
        return TRANSPARENT_ETHERNET, at + 4
    return _ip(frame, at)


_SHIMS: Final[dict[int, Callable[[bytes, int], Payload]]] = {
    0x8100: _vlan,  # IEEE 802.1Q
    0x88A8: _vlan,  # IEEE 802.1ad, and what came before it
    0x9100: _vlan,
    0x9200: _vlan,
    0x8847: _mpls,
    0x8848: _mpls,
    0x8864: _pppoe,
    TRANSPARENT_ETHERNET: _ethernet,
    PPP: _ppp,
    **dict.fromkeys(range(0x8200, 0x8210), _ieee80211),  # Aruba, inside GRE
}


def inside(frame: bytes, payload: Payload) -> Payload:
    """The network layer behind VLAN tags, MPLS labels, PPPoE and the like."""
    for _ in range(_MAX_SHIMS):
        strip = _SHIMS.get(payload[0])
        if strip is None:
            return payload
        payload = strip(frame, payload[1])
    return _NOTHING
