"""Tunnels are looked into, unless that is not wanted; what carries them is told all the same."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from mitml4.capture.network.dissector import Dissector

MACS = b"\x02" * 12
ETHERNET = MACS + b"\x08\0"


def _gtp(extensions: bytes = b"", flags: int = 0x30) -> bytes:
    return bytes([flags, 0xFF, 0, 0, 0, 0, 0, 1]) + extensions


def summed(packet: bytes) -> bytes:
    """An IPv4 packet with the checksum of its header (RFC 791 §3.1)."""
    words = struct.unpack("!10H", packet[:10] + bytes(2) + packet[12:20])
    return packet[:10] + struct.pack("!H", 0xFFFF - sum(words) % 0xFFFF) + packet[12:]


OUTER: dict[str, Any] = {
    "IP in IP": lambda w, inner: w.ipv4(inner, protocol=4),
    "IP in 6": lambda w, inner: w.ipv6(inner, header=4),
    "GRE": lambda w, inner: w.ipv4(b"\0\0\x08\0" + inner, protocol=47),
    "GRE, all options": lambda w, inner: w.ipv4(b"\xb0\0\x08\0" + bytes(12) + inner, protocol=47),
    "GRE, Ethernet": lambda w, inner: w.ipv4(b"\0\0\x65\x58" + ETHERNET + inner, protocol=47),
    "PPTP": lambda w, inner: w.ipv4(b"\x30\x81\x88\x0b" + bytes(12) + b"\x21" + inner, protocol=47),
    "ERSPAN II": lambda w, inner: w.ipv4(
        b"\x10\0\x88\xbe" + bytes(12) + ETHERNET + inner, protocol=47
    ),
    "ERSPAN I": lambda w, inner: w.ipv4(b"\0\0\x88\xbe" + ETHERNET + inner, protocol=47),
    "Aruba": lambda w, inner: w.ipv4(
        b"\0\0\x82\0\x08\x01" + bytes(22) + b"\xaa\xaa\x03\0\0\0\x08\0" + inner, protocol=47
    ),
    "VXLAN": lambda w, inner: w.ipv4(
        w.udp(b"\x08" + bytes(7) + ETHERNET + inner, destination=4789), protocol=17
    ),
    "VXLAN GPE": lambda w, inner: w.ipv4(
        w.udp(b"\x0c\0\0\x01" + bytes(4) + inner, destination=4790), protocol=17
    ),
    "VXLAN of Linux": lambda w, inner: w.ipv4(
        w.udp(b"\x08" + bytes(7) + ETHERNET + inner, destination=8472), protocol=17
    ),
    "L2TP": lambda w, inner: w.ipv4(
        w.udp(b"\0\2\0\1\0\1\xff\3\0\x21" + inner, destination=1701), protocol=17
    ),
    "L2TP, all fields": lambda w, inner: w.ipv4(
        w.udp(b"\x4a\2\0\0\0\1\0\1" + bytes(4) + b"\0\3abc\x21" + inner, source=1701), protocol=17
    ),
    "ESP without encryption": lambda w, inner: w.ipv4(
        b"\0\0\1\1\0\0\0\1" + summed(inner) + b"\1\2\2\4" + bytes(12), protocol=50
    ),
    "ESP in UDP": lambda w, inner: w.ipv4(
        w.udp(b"\0\0\1\1\0\0\0\1" + summed(inner) + b"\0\4", destination=4500), protocol=17
    ),
    "Geneve": lambda w, inner: w.ipv4(
        w.udp(b"\x01\0\x65\x58" + bytes(8) + ETHERNET + inner, destination=6081), protocol=17
    ),
    "GTP-U": lambda w, inner: w.ipv4(w.udp(_gtp() + inner, destination=2152), protocol=17),
    "GTP-U, extensions": lambda w, inner: w.ipv4(
        w.udp(_gtp(b"\0\0\0\x85\x01\0\0\x85\x01\0\0\0", 0x34) + inner, source=2152), protocol=17
    ),
}

TRAILERS = {"ESP without encryption": 16, "ESP in UDP": 2}


def dissect(packet: bytes, *, tunnels: bool) -> bytes | None:
    unit = Dissector(tunnels=tunnels).unit(101, packet)
    return unit[4] if unit and len(unit) == 6 else None


def test_a_tunnel_is_opened_unless_that_is_not_wanted(wire: Any) -> None:
    for name in OUTER:
        packet = OUTER[name](wire, wire.ipv4(wire.tcp(b"inside")))
        assert dissect(packet, tunnels=True) == b"inside"
        assert dissect(packet, tunnels=False) is None


def test_a_datagram_that_carries_a_tunnel_is_told_beside_what_is_inside(wire: Any) -> None:
    for name in ("VXLAN", "VXLAN GPE", "Geneve", "GTP-U"):
        packet = OUTER[name](wire, wire.ipv4(wire.tcp(b"inside")))
        closed, opened = Dissector(tunnels=False), Dissector(tunnels=True)
        outer = closed.unit(101, packet)
        assert outer is not None
        assert len(outer) == 3
        assert outer[1].endswith(b"inside")
        inner = opened.unit(101, packet)
        assert inner is not None
        assert len(inner) == 6
        assert opened.carriers == [outer]
        assert closed.carriers == []


def test_a_tunnel_that_is_cut_leads_nowhere(wire: Any) -> None:
    for name in OUTER:
        packet = OUTER[name](wire, wire.ipv4(wire.tcp()))
        unread = 6 + TRAILERS.get(name, 0)  # window, checksum, urgent pointer; ESP's trailer
        for cut in range(len(packet) - unread):
            assert dissect(packet[:cut], tunnels=True) is None


def test_teredo_and_6in4_carry_ipv6(wire: Any) -> None:
    inner = wire.ipv6(wire.tcp(b"inside"))
    authentication = b"\0\x01\x02\x01ab" + b"c" + bytes(9)
    origin = b"\0\0" + bytes(6)
    for head in (b"", origin, authentication + origin):
        packet = wire.ipv4(wire.udp(head + inner, destination=3544), protocol=17)
        assert dissect(packet, tunnels=True) == b"inside"
    assert dissect(wire.ipv4(inner, protocol=41), tunnels=True) == b"inside"


@pytest.mark.parametrize(
    ("port", "body"),
    [(4789, b"\x18"), (6081, b"\x40"), (2152, b"\x10\xff"), (2152, b"\x30\x01"), (3544, b"\x50")],
)
def test_other_datagrams_on_a_tunnels_port_are_left(wire: Any, port: int, body: bytes) -> None:
    packet = wire.ipv4(
        wire.udp(body + bytes(30) + wire.ipv4(wire.tcp(b"x")), destination=port), protocol=17
    )
    assert dissect(packet, tunnels=True) is None


def test_tunnels_in_tunnels_end_somewhere(wire: Any) -> None:
    packet = wire.tcp(b"deep")
    packet = wire.ipv4(packet)
    for _ in range(20):
        packet = wire.ipv4(packet, protocol=4)
    assert dissect(packet, tunnels=True) == b"deep"
    for _ in range(20):
        packet = wire.ipv4(packet, protocol=4)
    assert dissect(packet, tunnels=True) is None


def test_esp_that_may_be_encrypted_is_not_looked_into(wire: Any) -> None:
    head, inner = b"\0\0\1\1\0\0\0\1", summed(wire.ipv4(wire.tcp(b"inside")))
    for data in (
        wire.ipv4(wire.tcp(b"inside"))[:10] + b"\x12\x34" + inner[12:] + b"\0\4",
        inner,  # no trailer
        inner[:19],
        b"",
    ):
        assert dissect(wire.ipv4(head + data, protocol=50), tunnels=True) is None


def test_a_control_message_of_l2tp_is_no_packet(wire: Any) -> None:
    inner = b"\xc8\2\0\x0c" + bytes(8) + b"\xff\3\0\x21" + wire.ipv4(wire.tcp(b"inside"))
    packet = wire.ipv4(wire.udp(inner, destination=1701), protocol=17)
    assert dissect(packet, tunnels=True) is None
