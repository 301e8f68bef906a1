"""Every link type leads to the same segment; what is cut short or unknown leads to none."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.capture.network.dissector import Dissector
from mitml4.capture.network.links import LINKS

SNAP = b"\xaa\xaa\x03\0\0\0\x08\0"
MACS = b"\x02" * 12
MPLS_BOTTOM = b"\0\x01\x01\x40"
MPLS_MORE = b"\0\x01\x00\x40"
WIFI = b"\x08\x01\0\0" + b"\x02" * 18 + b"\0\0"

FRAMES = {
    "loopback, little": (0, b"\x02\0\0\0", b""),
    "loopback, big": (108, b"\0\0\0\x02", b""),
    "Ethernet": (1, MACS + b"\x08\0", b""),
    "802.3 with SNAP": (1, MACS + b"\0\x50" + SNAP, b""),
    "VLAN": (1, MACS + b"\x81\0\0\x05\x08\0", b""),
    "QinQ": (1, MACS + b"\x88\xa8\0\x05\x81\0\0\x06\x08\0", b""),
    "three tags": (1, MACS + b"\x91\0\0\x05\x81\0\0\x06\x81\0\0\x06\x08\0", b""),
    "MPLS": (1, MACS + b"\x88\x47" + MPLS_MORE + MPLS_BOTTOM, b""),
    "MPLS pseudowire": (
        1,
        MACS + b"\x88\x47" + MPLS_BOTTOM + b"\0\0\0\0" + MACS + b"\x08\0",
        b"",
    ),
    "MPLS in VLAN": (1, MACS + b"\x81\0\0\x05\x88\x47" + MPLS_BOTTOM, b""),
    "PPPoE": (1, MACS + b"\x88\x64\x11\0\0\x01\0\x42\0\x21", b""),
    "PPP": (9, b"\0\x21", b""),
    "PPP, HDLC framing": (50, b"\xff\x03\0\x21", b""),
    "PPP, compressed protocol": (9, b"\x21", b""),
    "PPP that is Cisco HDLC": (9, b"\x0f\0\x08\0", b""),
    "PPP over Ethernet": (51, b"\x11\0\0\x01\0\x42\0\x21", b""),
    "PPP with direction": (204, b"\0\xff\x03\0\x21", b""),
    "FDDI": (10, b"\x50" + MACS + SNAP, b""),
    "raw IP": (101, b"", b""),
    "raw IPv4": (228, b"", b""),
    "BSD raw": (12, b"", b""),
    "Cisco HDLC": (104, b"\x0f\0\x08\0", b""),
    "802.11": (105, WIFI + SNAP, b""),
    "802.11 QoS": (105, b"\x88" + WIFI[1:] + b"\0\0" + SNAP, b""),
    "802.11, four addresses": (105, b"\x08\x03" + WIFI[2:] + b"\x02" * 6 + SNAP, b""),
    "radiotap": (127, b"\0\0\x0a\0" + bytes(6) + WIFI + SNAP, b"\1\2\3\4"),
    "PPI": (192, b"\0\0\x08\0\x69\0\0\0" + WIFI + SNAP, b""),
    "Linux cooked": (113, bytes(14) + b"\x08\0", b""),
    "Linux cooked v2": (276, b"\x08\0" + bytes(18), b""),
    "ARCnet, RFC 1051": (129, b"\1\2\0\0\xf0", b""),
    "ARCnet, RFC 1201": (129, b"\1\2\0\0\xd4\0\0\1", b""),
    "NFLOG": (239, b"\x02\0\0\0" + b"\x08\0\x01\0abcd" + b"\x00\x00\x09\0", b""),
    "NFLOG, big": (239, b"\x02\0\0\0" + b"\0\x05\0\x01a\0\0\0" + b"\0\x00\x80\x09", b""),
    "pflog": (117, bytes([61]) + bytes(63), b""),
    "mPacket": (274, bytes(8) + MACS + b"\x08\0", b"\1\2\3\4"),
}


def dissect(link_type: int, frame: bytes) -> tuple[int, bytes] | None:
    """The sequence number and payload."""
    segment: Any = Dissector().unit(link_type, frame)
    if segment is None:
        return None
    return segment[1], segment[4]


def test_every_link_type_leads_to_the_segment(wire: Any) -> None:
    for name in FRAMES:
        link_type, before, after = FRAMES[name]
        packet = wire.ipv4(wire.tcp(b"payload", seq=7))
        assert dissect(link_type, before + packet + after) == (7, b"payload")


def test_every_link_type_has_a_case() -> None:
    tried = {link_type for link_type, _, _ in FRAMES.values()}
    assert set(LINKS) - tried == {14, 229}  # raw IP by other numbers


def test_a_frame_that_is_cut_before_the_tcp_flags_leads_to_none(wire: Any) -> None:
    for name in FRAMES:
        link_type, before, _ = FRAMES[name]
        frame = before + wire.ipv4(wire.tcp())
        unread = 6  # window, checksum, urgent pointer
        for cut in range(len(frame) - unread):
            assert dissect(link_type, frame[:cut]) is None


@pytest.mark.parametrize(
    ("link_type", "before"),
    [
        (1, MACS + b"\x88\x63\x11\x09\0\0\0\0"),  # PPPoE discovery
        (1, MACS + b"\0\x50\x42\x42\x03"),  # spanning tree
        (105, b"\x80\0" + WIFI[2:] + SNAP),  # a beacon
        (105, b"\x08\x41" + WIFI[2:] + SNAP),  # encrypted
        (105, b"\x48\x01" + WIFI[2:] + SNAP),  # a null frame
        (192, b"\0\0\x08\0\xc0\0\0\0"),  # PPI in PPI
        (239, b"\x02\0\0\0" + b"\0\0\x01\0"),  # a TLV without a length
        (147, b""),
    ],
)
def test_what_carries_no_packet_leads_to_none(wire: Any, link_type: int, before: bytes) -> None:
    assert dissect(link_type, before + wire.ipv4(wire.tcp(b"payload"))) is None


def test_tags_without_end_lead_to_none() -> None:
    assert dissect(1, MACS + b"\x81\0\0\x05" * 500) is None


@given(st.sampled_from(sorted(LINKS)), st.binary(max_size=120))
def test_random_frames_never_raise(link_type: int, frame: bytes) -> None:
    dissector = Dissector(tunnels=True)
    dissector.unit(link_type, frame)
    ethernet = MACS + struct.pack(">H", 0x0800) + frame
    dissector.unit(1, ethernet)
