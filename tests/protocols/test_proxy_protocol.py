"""The PROXY protocol: each header whole, byte by byte, and with inner bytes behind it."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.address import Address
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.proxy_protocol import ProxyProtocol, detect

UP, DOWN = Direction.UP, Direction.DOWN

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + b"\xdc\x04\x01\xbb"
V6 = bytes.fromhex("20010db8000000000000000000000001") * 2 + b"\xdc\x04\x01\xbb"
TLVS = b"\x01\x00\x02h2" + b"\x04\x00\x10" + bytes(16)


def v2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + len(body).to_bytes(2, "big") + body


ALL_ONES = Address("ffff:" * 7 + "ffff", 65535)
LONGEST = b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2 + [b"65535"] * 2) + b"\r\n"
HEADERS: dict[str, tuple[bytes, int, Address | None, Address | None]] = {
    "v1 tcp4": (
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
        1,
        Address("192.0.2.1", 56324),
        Address("192.0.2.2", 443),
    ),
    "v1 tcp6": (
        b"PROXY TCP6 2001:db8::1 2001:db8::2 1 0\r\n",
        1,
        Address("2001:db8::1", 1),
        Address("2001:db8::2", 0),
    ),
    "v1 longest": (LONGEST, 1, ALL_ONES, ALL_ONES),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", 1, None, None),
    "v1 unknown, with words": (b"PROXY UNKNOWN ff:: what ever\r\n", 1, None, None),
    "v2 tcp4": (v2(1, 0x11, V4), 2, Address("192.0.2.1", 56324), Address("192.0.2.2", 443)),
    "v2 udp6": (v2(1, 0x22, V6), 2, Address("2001:db8::1", 56324), Address("2001:db8::1", 443)),
    "v2 tlvs": (v2(1, 0x11, V4 + TLVS), 2, Address("192.0.2.1", 56324), Address("192.0.2.2", 443)),
    "v2 unspecified": (v2(1, 0x00, TLVS), 2, None, None),
    "v2 unix": (v2(1, 0x31, bytes(216)), 2, None, None),
    "v2 local": (v2(0, 0x00, b""), 2, None, None),
    "v2 local, with an address": (v2(0, 0x11, V4), 2, None, None),
    "v2 longest": (v2(1, 0x00, bytes(65535)), 2, None, None),
}


def test_the_inner_protocol_begins_right_behind_the_header(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for header, version, source, destination in HEADERS.values():
            conversation = ProxyProtocol()
            talk = converse(
                conversation, [(UP, header + b"\x16\x03"), (DOWN, b"220 hi")], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.moved[UP], talk.kept[UP]) == (header, b"\x16\x03")
            assert talk.kept[DOWN] == b"220 hi"
            assert conversation.details_ready
            details = conversation.details()
            assert (details.version, details.source, details.destination) == (
                version,
                source,
                destination,
            )


def test_detection_of_every_header_and_no_part_of_one() -> None:
    for name in HEADERS:
        header = HEADERS[name][0]
        assert detect(Opening(up=header)) is Verdict.MATCH
        assert detect(Opening(up=header[:14])) is Verdict.NEED_MORE


MALFORMED = [
    b"PROXY\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5",
    b"PROXY me",
    b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.256 1 2\r\n",
    b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
    b"PROXY TCP4 192.0.2.\xb2 192.0.2.2 1 2\r\n",
    b"PROXY UNKNOWN " + b"x" * 94,
    SIGNATURE + b"\x11",
    SIGNATURE + b"\x22",
    SIGNATURE + b"\x21\x41",
    SIGNATURE + b"\x21\x13",
    v2(1, 0x11, V4[:-1]),
    b"\r\n\r\n\x01",
    b"QUIT",
]


def test_a_malformed_header_is_none(converse: Any) -> None:
    for data in MALFORMED:
        assert detect(Opening(up=data)) is Verdict.REJECT
        with pytest.raises(ProtocolError, match="PROXY"):
            converse(ProxyProtocol(), [(UP, data)])


def test_a_server_that_speaks_before_any_header_has_none() -> None:
    assert detect(Opening(down=b"220 hi\r\n")) is Verdict.REJECT


@pytest.mark.parametrize("cut", [10, 20])
def test_a_client_that_leaves_within_the_header_lets_the_servers_bytes_pass(
    converse: Any, cut: int
) -> None:
    conversation = ProxyProtocol()
    header = v2(1, 0x00, bytes(100))[:cut]
    talk = converse(conversation, [(UP, header), (DOWN, b"bye"), (UP, None), (DOWN, None)])
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert (talk.moved[UP], talk.moved[DOWN]) == (header, b"bye")
