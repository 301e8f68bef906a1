"""Packets to segments: keys, bounds and fragments, for both versions of IP."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest

from mitml4.capture.network.dissector import ACK, FIN, RST, SYN, Dissector


def payload(segment: Any) -> bytes:
    data: bytes = segment[4]
    return data


def test_a_segment_is_told_field_by_field(wire: Any) -> None:
    frame = wire.ethernet(wire.ipv4(wire.tcp(b"hello", seq=5, ack=9, flags=ACK | FIN)))
    segment: Any = Dissector().unit(1, frame)
    key, seq, ack, flags, data, length = segment
    ends = ip_address("192.0.2.1").packed + ip_address("198.51.100.2").packed
    assert key == ends + struct.pack(">HH", 40000, 80)
    assert (seq, ack, flags, data, length) == (5, 9, ACK | FIN, b"hello", 5)


@pytest.mark.parametrize("tagged", [False, True], ids=["plain", "tagged"])
def test_a_segment_over_ipv6_is_told_field_by_field(wire: Any, tagged: bool) -> None:
    frame = wire.ethernet(wire.ipv6(wire.tcp(b"hello", seq=5, ack=9, flags=ACK | FIN)), kind=0x86DD)
    if tagged:
        frame = frame[:12] + b"\x81\x00\x00\x07" + frame[12:]
    segment: Any = Dissector().unit(1, frame + b"padding")
    key, seq, ack, flags, data, length = segment
    ends = ip_address("2001:db8::1").packed + ip_address("2001:db8::2").packed
    assert key == ends + struct.pack(">HH", 40000, 80)
    assert (seq, ack, flags, data, length) == (5, 9, ACK | FIN, b"hello", 5)


def test_a_frame_over_ipv6_that_was_cut_within_its_headers_is_counted(wire: Any) -> None:
    for size in range(14, 75):
        frame = wire.ethernet(wire.ipv6(wire.tcp(b"hello")), kind=0x86DD)
        dissector = Dissector()
        segment = dissector.unit(1, frame[:size])
        assert (segment is None) == (size < 68)
        assert dissector.skipped.total() == (size < 68)


def test_the_flags_are_those_of_rfc_9293(wire: Any) -> None:
    assert (wire.FIN, wire.SYN, wire.RST, wire.ACK) == (FIN, SYN, RST, ACK)


def test_the_padding_of_a_short_frame_is_no_payload(wire: Any) -> None:
    frame = wire.ethernet(wire.ipv4(wire.tcp(b"hi")))
    assert payload(Dissector().unit(1, frame + bytes(6))) == b"hi"


@pytest.mark.parametrize("options", [b"", b"\x94\x04\0\0"])
def test_options_of_ip_and_tcp_are_skipped(wire: Any, options: bytes) -> None:
    packet = wire.ipv4(wire.tcp(b"hi", options=b"\1" * 12), options=options)
    assert payload(Dissector().unit(1, wire.ethernet(packet))) == b"hi"


def test_a_segment_that_the_capture_cut_has_its_length_all_the_same(wire: Any) -> None:
    frame = wire.ethernet(wire.ipv4(wire.tcp(b"x" * 100)))[:64]
    segment = Dissector().unit(1, frame)
    assert segment is not None
    assert segment[4:] == (b"x" * 10, 100)


def test_a_length_of_zero_means_what_was_captured(wire: Any) -> None:
    """Offloading leaves it in packets that were longer than the field can say."""
    v4 = wire.ethernet(wire.ipv4(wire.tcp(b"x" * 100), total=0))
    v6 = wire.ethernet(wire.ipv6(wire.tcp(b"x" * 100), length=0), 0x86DD)
    jumbo = b"\x06\0\xc2\x04\0\x01\0\0"  # RFC 2675 §2
    with_option = wire.ethernet(wire.ipv6(jumbo + wire.tcp(b"x" * 100), header=0, length=0), 0x86DD)
    for frame in (v4, v6, with_option):
        assert payload(Dissector().unit(1, frame)) == b"x" * 100


@pytest.mark.parametrize(
    ("header", "before"),
    [
        (6, b""),
        (0, b"\x06\0" + bytes(6)),
        (60, b"\x2b\x01" + bytes(14) + b"\x06\0" + bytes(6)),
        (51, b"\x06\x04" + bytes(22)),
        (44, b"\x06\0\0\0" + bytes(4)),
    ],
    ids=["none", "hop-by-hop", "destination, routing", "authentication", "atomic fragment"],
)
def test_ipv6_extension_headers_are_skipped(wire: Any, header: int, before: bytes) -> None:
    frame = wire.ethernet(wire.ipv6(before + wire.tcp(b"hi"), header=header), 0x86DD)
    segment = Dissector().unit(1, frame)
    assert payload(segment) == b"hi"
    assert segment is not None
    assert len(segment[0]) == 36


def test_fragments_are_counted_and_put_together_in_any_order(wire: Any) -> None:
    whole = wire.tcp(bytes(range(200)) * 5)
    cuts = [(0, 400), (400, 800), (800, len(whole))]
    fragments = [
        wire.ipv4(
            whole[start:end],
            identification=77,
            fragment=(start // 8) | (0x2000 if end < len(whole) else 0),
        )
        for start, end in cuts
    ]
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        dissector = Dissector()
        found = [dissector.unit(101, fragments[index]) for index in order]
        assert found[:2] == [None, None]
        assert payload(found[2]) == bytes(range(200)) * 5
        assert dissector.skipped["fragment"] == 3


def test_ipv6_fragments_are_put_together(wire: Any) -> None:
    whole = wire.tcp(bytes(300))
    dissector = Dissector()
    for start, end in ((0, 160), (160, len(whole))):
        offset = start | (1 if end < len(whole) else 0)
        head = struct.pack(">BxHI", 6, offset, 99)
        found = dissector.unit(101, wire.ipv6(head + whole[start:end], header=44))
    assert payload(found) == bytes(300)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (lambda w: w.ethernet(w.ipv4(b"x" * 40, protocol=132)), "neither TCP nor UDP"),
        (lambda w: w.ethernet(b"\0" * 60, 0x0806), "not IP"),
        (lambda w: w.ethernet(w.ipv6(w.tcp()), 0x0800), "not IP"),
        (lambda w: w.ethernet(w.ipv4(w.tcp()[:12] + b"\x40" + w.tcp()[13:])), "broken TCP header"),
        (lambda w: w.ethernet(w.ipv4(w.tcp()[:12] + b"\xf0" + w.tcp()[13:])), "broken TCP header"),
        (lambda w: w.ethernet(w.ipv4(w.tcp()))[:40], "cut short"),
        (lambda w: w.ethernet(w.ipv6(b"\0\0" * 600, header=0), 0x86DD), "nested too deeply"),
    ],
)
def test_what_has_no_segment_is_counted_by_its_reason(wire: Any, frame: Any, reason: str) -> None:
    dissector = Dissector()
    assert dissector.unit(1, frame(wire)) is None
    assert dissector.skipped == {reason: 1}


def test_an_unknown_link_type_is_counted(wire: Any) -> None:
    dissector = Dissector()
    assert dissector.unit(250, wire.ipv4(wire.tcp())) is None
    assert dissector.skipped == {"link type 250": 1}


def test_a_datagram_is_told_with_its_length_on_the_wire(wire: Any) -> None:
    packet = wire.ipv4(wire.udp(b"x" * 40, source=5000, destination=53), protocol=17)
    ends = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack(">HH", 5000, 53)
    assert Dissector().unit(101, packet) == (ends, b"x" * 40, 40)
    assert Dissector().unit(101, packet[:-10]) == (ends, b"x" * 30, 40)
    padded = packet + bytes(6)
    assert Dissector().unit(101, padded) == (ends, b"x" * 40, 40)
