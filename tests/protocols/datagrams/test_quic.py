"""QUIC's hellos, as clients send them: in pieces, in any order, over several datagrams."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction
from mitml4.protocols.datagrams.quic import Quic
from tests.crypto.quic_packets import VERSIONS, Vectors, crypto, initial, vectors

UP, DOWN = Direction.UP, Direction.DOWN
BOTH = [
    pytest.param(each, id=f"RFC {rfc}") for each, rfc in zip(vectors(), (9001, 9369), strict=True)
]


def hello_of(each: Vectors) -> bytes:
    """The ClientHello of the RFCs, without its frame."""
    return each.client_payload[4:]


def take(*datagrams: tuple[Direction, bytes]) -> Quic:
    quic = Quic()
    for direction, datagram in datagrams:
        quic.take(direction, datagram)
    return quic


@pytest.mark.parametrize("each", BOTH)
def test_the_packets_of_the_rfcs_show_both_hellos(each: Vectors) -> None:
    quic = take((UP, each.client))
    details = quic.details()
    assert details.version == ("1" if each.version == 1 else "2")
    assert (details.sni, details.alpn_offered) == ("example.com", (b"alpn",))
    assert details.ja4 == "q13d0211an_62ed6f6ca7ad_4d634acda6c0"
    assert details.ech == "none"  # as in the details of TLS
    assert not quic.over
    quic.take(DOWN, each.server)
    assert quic.over
    details = quic.details()
    assert (details.cipher, details.group) == ("TLS_AES_128_GCM_SHA256", "x25519")


@given(st.integers(0, 1 << 32), st.integers(2, 12), st.sampled_from(sorted(VERSIONS)))
def test_a_hello_in_pieces_is_put_in_order(seed: int, count: int, version: int) -> None:
    """As browsers chop it: pieces of any length, shuffled, with pings and padding between them, in
    two packets; some come twice."""
    source, hello = Random(seed), hello_of(vectors()[0])
    cuts = sorted({0, len(hello), *(source.randrange(len(hello)) for _ in range(count))})
    frames = [crypto(a, hello[a:b]) for a, b in itertools.pairwise(cuts)]
    frames += [b"\x01", bytes(source.randrange(30)), frames[0]]
    source.shuffle(frames)
    middle = source.randrange(len(frames))
    packets = [
        initial(b"".join(part) + bytes(40), number, version=VERSIONS[version])
        for number, part in enumerate((frames[:middle], frames[middle:]))
    ]
    source.shuffle(packets)
    quic = take(*((UP, packet) for packet in packets))
    assert quic.details().sni == "example.com"
    together = take((UP, b"".join(packets)))
    assert together.details() == quic.details()


def test_a_hello_of_which_a_part_is_missing_has_no_name() -> None:
    hello = hello_of(vectors()[0])
    quic = take((UP, initial(crypto(100, hello[100:]) + bytes(40))))
    assert quic.details().version == "1"
    assert (quic.details().sni, quic.details().ja4) == (None, None)


def test_the_client_goes_on_with_the_servers_id_and_the_same_keys() -> None:
    hello = hello_of(vectors()[0])
    quic = take(
        (UP, initial(crypto(0, hello[:100]) + bytes(40))),
        (DOWN, initial(b"\x02\0\0\0\0" + bytes(40), of_client=False, destination=b"")),
        (UP, initial(crypto(100, hello[100:]), 1, destination=b"serverid")),
    )
    assert quic.details().sni == "example.com"


@pytest.mark.parametrize("each", BOTH)
def test_after_a_retry_the_keys_follow_from_the_servers_id(each: Vectors) -> None:
    source = each.retry[7:15]
    again = initial(
        crypto(0, hello_of(each)), 1, version=each.version, chosen=source, token=b"token"
    )
    quic = take((UP, initial(bytes(40), version=each.version)), (DOWN, each.retry))
    assert quic.details().retry
    quic.take(UP, again)
    assert quic.details().sni == "example.com"
    forged = each.retry[:-1] + b"\0"
    with pytest.raises(ProtocolError):
        take((UP, initial(bytes(40), version=each.version)), (DOWN, forged))


def test_a_capture_that_begins_after_the_retry_is_opened() -> None:
    quic = take((UP, initial(crypto(0, hello_of(vectors()[0])), 5, chosen=b"another", token=b"t")))
    assert quic.details().sni == "example.com"


def test_a_server_may_name_the_versions_that_it_wants() -> None:
    negotiation = (
        b"\xca" + bytes(4) + b"\0" + b"\x08" + b"12345678" + b"\x6b\x33\x43\xcf\xfa\xfa\xfa\xfa"
    )
    first = b"\xc3\x1a\x2a\x3a\x4a\x08" + b"12345678" + b"\0\0" + b"\x44\x00" + bytes(1024)
    quic = take((UP, first), (DOWN, negotiation))
    assert quic.details().versions == ("2", "0xfafafafa")
    assert quic.details().version == "0x1a2a3a4a"


def test_googles_versions_are_named() -> None:
    quic = take((UP, b"\x0d" + bytes(8) + b"Q043" + bytes(100)))
    assert (quic.details().version, quic.over) == ("Q043", True)
    quic = take((UP, b"\xc3Q046\x50" + b"12345678" + bytes(40)))
    assert quic.details().version == "Q046"


def test_packets_after_the_handshake_need_not_be_seen() -> None:
    assert take((UP, vectors()[0].client), (UP, b"\x40" + bytes(30))).over


def test_a_hello_without_end_is_given_up() -> None:
    quic = Quic()
    for number in range(60):
        quic.take(UP, initial(crypto(number * 1000, bytes(1000)), number))
    with pytest.raises(ProtocolError):
        quic.take(UP, initial(crypto(60_000, bytes(16_000)), 60))
    assert quic.memory < 1 << 18
