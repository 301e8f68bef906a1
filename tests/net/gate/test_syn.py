"""SYNs as packets: who asks for what, and a checksum that a receiver accepts."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.address import Address
from mitml4.net.gate.syn import Syn

TCP = struct.pack("!HHIIBBHHH", 40000, 443, 7, 0, 6 << 4, 2, 64240, 0xBEEF, 0) + b"\2\4\5\xb4"
V4 = (
    bytes([0x45, 0]) + struct.pack("!HHHBBH", 44, 1, 0, 64, 6, 0)
    + socket.inet_aton("192.0.2.2") + socket.inet_aton("198.51.100.2") + TCP
)  # fmt: skip
V6 = (
    bytes([0x60, 0, 0, 0]) + struct.pack("!HBB", len(TCP), 6, 64)
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2") + TCP
)  # fmt: skip


def sums_to_zero(data: bytes) -> bool:
    """RFC 1071 §1: over data and checksum the sum is all ones."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


@pytest.mark.parametrize(
    ("packet", "client", "destination", "addresses", "start"),
    [
        (V4, Address("192.0.2.2", 40000), Address("198.51.100.2", 443), slice(12, 20), 20),
        (V6, Address("2001:db8::1", 40000), Address("2001:db8::2", 443), slice(8, 40), 40),
    ],
)
def test_a_syn_is_read_and_its_checksum_filled_in(
    packet, client, destination, addresses, start
) -> None:
    syn = Syn.parse(packet)
    assert (syn.client, syn.destination) == (client, destination)
    segment = syn.packet[start:]
    # RFC 9293 §3.1, the pseudo header: addresses, protocol, length.
    pseudo = packet[addresses] + struct.pack("!HH", 6, len(segment))
    assert sums_to_zero(pseudo + segment)
    assert packet[0] >> 4 == 6 or sums_to_zero(syn.packet[:start])
    assert syn.packet[addresses] == packet[addresses]
    assert segment[:16] + segment[18:] == TCP[:16] + TCP[18:]


def test_the_answer_that_there_is_no_way_quotes_the_syn() -> None:
    syn = Syn.parse(V4)
    answer = syn.unreachable()
    assert answer[12:20] == V4[16:20] + V4[12:16]
    assert (answer[9], answer[20:22]) == (1, b"\3\1")  # RFC 792: host unreachable
    assert answer[28:] == syn.packet
    assert sums_to_zero(answer[20:])

    syn = Syn.parse(V6)
    answer = syn.unreachable()
    assert answer[8:40] == V6[24:40] + V6[8:24]
    assert (answer[6], answer[40:42]) == (58, b"\1\3")  # RFC 4443 §3.1: address unreachable
    assert answer[48:] == syn.packet
    length = len(answer) - 40
    assert struct.unpack_from("!H", answer, 4) == (length,)
    assert sums_to_zero(answer[8:40] + struct.pack("!II", length, 58) + answer[40:])


EXTENSIONS = bytes([60, 0, 1, 4, 0, 0, 0, 0]), bytes([44, 0, 1, 4, 0, 0, 0, 0])
ATOMIC_FRAGMENT = bytes([6, 0, 0, 0, 1, 2, 3, 4])


def extended(*headers: bytes) -> bytes:
    """With hop-by-hop options first, if any."""
    body = b"".join(headers) + TCP
    return V6[:4] + struct.pack("!HBB", len(body), 0 if headers else 6, 64) + V6[8:40] + body


def test_extension_headers_and_data_are_left_out() -> None:
    plain = Syn.parse(V6)
    assert Syn.parse(extended(bytes([6, 0, 1, 4, 0, 0, 0, 0]))) == plain
    assert Syn.parse(extended(*EXTENSIONS, ATOMIC_FRAGMENT)) == plain
    assert Syn.parse(V6 + b"data") == plain
    assert Syn.parse(V4 + b"data") == Syn.parse(V4)


def test_what_is_no_whole_tcp_packet_is_none() -> None:
    for packet in (
        b"",
        V4[:39],
        V6[:59],
        V4[:9] + b"\x11" + V4[10:],
        b"\x44" + V4[1:],
        V4[:32] + b"\x40" + V4[33:],
        V4[:32] + b"\xf0" + V4[33:],
        extended(*EXTENSIONS, bytes([6, 0, 0, 8, 0, 0, 0, 1])),  # a later fragment
        extended(*EXTENSIONS, bytes([6, 0, 0, 1, 0, 0, 0, 1])),  # of which more come
        extended(bytes([43, 0, 1, 4, 0, 0, 0, 0]), bytes([6, 0, 0, 1, 0, 0, 0, 0])),  # routed
        extended(bytes([60, 255, 1, 4, 0, 0, 0, 0])),
    ):
        assert Syn.parse(packet) is None


def test_what_translation_changes_is_not_what_a_syn_is_known_by() -> None:
    translated = V4[:12] + socket.inet_aton("203.0.113.1") * 2 + b"\1\2\3\4" + V4[24:]
    other = V4[:24] + b"\1\2\3\4" + V4[28:]
    assert Syn.parse(translated).untranslated == Syn.parse(V4).untranslated
    assert Syn.parse(other).untranslated != Syn.parse(V4).untranslated


@given(st.binary(max_size=120))
def test_no_bytes_break_it(data: bytes) -> None:
    Syn.parse(data)
