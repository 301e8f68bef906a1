"""Media that a session description announces (RFC 8866): where they will be sent."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

from mitml4.protocols.expected import Announcement
from mitml4.regex import regex

__all__ = ["announced_media"]

_CONNECTION: Final = regex(rb"c=IN IP[46] ([0-9A-Fa-f.:]{2,45})")
_MEDIA: Final = regex(rb"m=[a-z]+ ([0-9]{1,5})(?:/[0-9]+)? (?:UDP/TLS/)?RTP/S?AVPF? ")
_RTCP: Final = regex(rb"a=rtcp:([0-9]{1,5})")
_MAX_MEDIA: Final = 16


def announced_media(body: bytes) -> list[Announcement]:
    """RTP and RTCP of each medium, at the address that is its own or the session's."""
    sections = body.split(b"\nm=")
    session = _CONNECTION.search(sections[0])
    found: list[Announcement] = []
    for section in sections[1 : _MAX_MEDIA + 1]:
        section = b"m=" + section
        media, own = _MEDIA.match(section), _CONNECTION.search(section) or session
        if media and own and int(media[1]):
            rtcp = _RTCP.search(section)
            port = int(media[1])
            ports = port, int(rtcp[1]) if rtcp else port + 1
            found += _of(own[1].decode(), *ports)
    return found


def _of(host: str, rtp: int, rtcp: int) -> Iterator[Announcement]:
    try:
        ip = str(ip_address(host))
    except ValueError:
        return
    for protocol, port in ("rtp", rtp), ("rtcp", rtcp):
        yield Announcement(protocol=protocol, transport="udp", host=ip, port=port)
