"""Detection of datagrams: one answer for what is known, and none for noise.

`EXCHANGES` holds the first datagrams of real conversations. A new row of the registry needs an
entry here.
"""

from __future__ import annotations

from random import Random
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction, LayerContext, Verdict
from mitml4.protocols.datagram import DatagramProtocol, Evidence, Exchange
from mitml4.protocols.datagrams.registry import PROTOCOLS, announced, by_name, detect
from mitml4.protocols.parts.fields import Short
from tests.crypto.quic_packets import vectors

UP, DOWN = Direction.UP, Direction.DOWN
Trace: TypeAlias = list[tuple[Direction, bytes]]

QUERY = bytes.fromhex("1a2b01000001000000000000") + b"\7example\3com\0\0\1\0\1"
ANSWER = (
    bytes.fromhex("1a2b81800001000100000000")
    + b"\7example\3com\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\x5d\xb8\xd8\x22"
)
NETBIOS = bytes.fromhex("813d01100001000000000000") + b"\x20" + b"CACACACACACACACACACACACACACACAAA"
HELLO = bytes.fromhex("16fefd0000000000000000003001000024000000000000002400") + bytes(35)
SIP = b"OPTIONS sip:a@192.0.2.1 SIP/2.0\r\nCall-ID: 1\r\n\r\n"
RESET = b"\x38" + b"\x01" * 8 + b"\0" + bytes(4)
NTP = bytes([0x23, 0, 6, 0xEC]) + bytes(44)

EXCHANGES: dict[str, list[tuple[int, Trace]]] = {
    "quic": [(443, [(UP, vectors()[0].client)]), (4433, [(UP, vectors()[1].client)])],
    "dns": [
        (53, [(UP, QUERY)]),
        (5300, [(UP, QUERY), (DOWN, ANSWER)]),
        (53, [(UP, ANSWER)]),
    ],
    "mdns": [(5353, [(UP, bytes(4) + b"\0\1" + bytes(6) + b"\5_http\4_tcp\5local\0\0\x0c\0\1")])],
    "llmnr": [(5355, [(UP, b"\x12\x34\0\0\0\1" + bytes(6) + b"\4host\0\0\1\0\1")])],
    "netbios-ns": [(137, [(UP, NETBIOS + b"\0\0\x20\0\1")])],
    "dtls": [(4433, [(UP, HELLO)])],
    "stun": [
        (3478, [(UP, b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12))]),
        (3478, [(UP, b"\0\1\0\0" + bytes(16))]),
    ],
    "sip": [(5060, [(UP, SIP)]), (9999, [(UP, SIP), (DOWN, b"SIP/2.0 200 OK\r\n\r\n")])],
    "ntp": [(123, [(UP, NTP)]), (123, [(UP, b"\x16\2" + bytes(10))])],
    "dhcp": [(67, [(UP, b"\1\1\6\0" + bytes(232) + b"\x63\x82\x53\x63\x35\1\1\xff")])],
    "dhcpv6": [(547, [(UP, b"\1abc\0\1\0\4abcd")])],
    "tftp": [(69, [(UP, b"\0\1boot.img\0octet\0")])],
    "snmp": [
        (161, [(UP, bytes.fromhex("301a0201010406") + b"public" + bytes.fromhex("a00d020101")
                + bytes.fromhex("0201000201003002") + b"\0\0")]),
    ],
    "syslog": [(514, [(UP, b"<34>Oct 11 22:14:15 host su: hello")])],
    "radius": [(1812, [(UP, b"\1\1\0\x19" + bytes(16) + b"\1\5bob")])],
    "ssdp": [
        (1900, [(UP, b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n\r\n")]),
        (40000, [(UP, b"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=1\r\nST: upnp:x\r\n\r\n")]),
    ],
    "coap": [(5683, [(UP, b"\x40\x01\x12\x34\xbb.well-known\x04core")])],
    "kerberos": [(88, [(UP, b"\x6a\x81\x85\x30\x81\x82\xa1\3\2\1\5\xa2\3\2\1\x0a" + bytes(120))])],
    "netbios-dgm": [(138, [(UP, b"\x11\x02\x80\x01\xc0\0\2\1\0\x8a" + bytes(20))])],
    "rpc": [
        (111, [(UP, b"abcd" + bytes(4) + b"\0\0\0\2\0\1\x86\xa0\0\0\0\2\0\0\0\3" + bytes(32))]),
    ],
    "wireguard": [
        (12345, [(UP, b"\1\0\0\0" + b"x" * 144)]),
        (51820, [(UP, b"\4\0\0\0" + b"x" * 28)]),
    ],
    "openvpn": [(1194, [(UP, RESET)])],
    "ike": [
        (500, [(UP, b"12345678" + bytes(8) + b"\x21\x20\x22\x08" + bytes(4) + b"\0\0\0\x1c")]),
        (4500, [(UP, bytes(4) + b"12345678" * 2 + b"\x2e\x20\x23\x08\0\0\0\1\0\0\0\x1c")]),
    ],
    "esp": [(4500, [(UP, b"\xff"), (UP, b"\xc0\1\2\3\0\0\0\1" + bytes(40))])],
    "l2tp": [(1701, [(UP, b"\xc8\x02\0\x0c\0\0\0\0\0\0\0\0")])],
    "vxlan": [(4789, [(UP, b"\x08\0\0\0\0\0\x2a\0" + bytes(60))])],
    "geneve": [(6081, [(UP, b"\0\0\x65\x58\0\0\x2a\0" + bytes(60))])],
    "gtp": [(2152, [(UP, b"\x30\xff\0\x14\0\0\0\1" + bytes(20))])],
    "teredo": [(3544, [(UP, b"\0\1\0\0" + bytes(9) + b"\x60" + bytes(39))])],
    "bittorrent": [
        (6881, [(UP, b"d1:ad2:id20:" + b"x" * 20 + b"e1:q4:ping1:t2:aa1:y1:qe")]),
        (6882, [(UP, b"\x41\x00\x12\x34abcd" + bytes(4) + b"\0\x10\0\0\0\1\0\0")]),
        (6969, [(UP, bytes.fromhex("000004172710198000000000") + b"abcd")]),
    ],
}  # fmt: skip


def exchange(trace: Trace, *ports: int) -> Exchange:
    return Exchange(
        up=tuple(data for direction, data in trace if direction is UP),
        down=tuple(data for direction, data in trace if direction is DOWN),
        ports=frozenset(ports),
    )


def test_every_row_that_detects_has_an_exchange() -> None:
    assert EXCHANGES.keys() == {row.name for row in PROTOCOLS if row.request}
    known = [trace for traces in EXCHANGES.values() for _, trace in traces]
    for row in PROTOCOLS:
        if row.request:
            assert any(row.detect(exchange(trace, *row.ports)).value == "match" for trace in known)


def test_an_exchange_is_known_for_what_it_is() -> None:
    for name, traces in EXCHANGES.items():
        for port, trace in traces:
            row, is_final = detect(exchange(trace, 40000, port))
            assert (row and row.name, is_final) == (name, True)


def test_what_is_known_by_its_bytes_is_known_on_any_port() -> None:
    magic = {row.name for row in PROTOCOLS if row.evidence is Evidence.MAGIC}
    assert {"quic", "dtls", "stun", "sip", "wireguard", "ike", "bittorrent"} <= magic
    for name in magic:
        _, trace = EXCHANGES[name][0]
        row, _ = detect(exchange(trace, 40000, 9))
        assert row is not None
        assert row.name == name


def test_a_weak_rule_needs_a_port_or_an_answer() -> None:
    assert detect(exchange([(UP, NTP)], 40000, 9)) == (None, False)
    row, is_final = detect(exchange([(UP, NTP), (DOWN, b"\x24\2" + NTP[2:])], 40000, 9))
    assert (row and row.name, is_final) == ("ntp", True)
    assert detect(exchange([(UP, NTP), (DOWN, b"something else")], 40000, 9)) == (None, True)
    assert detect(exchange([(UP, b"<34>hello")], 40000, 9)) == (None, True)


def test_fields_that_no_sender_fills_so_are_no_match_on_a_usual_port() -> None:
    quiet_client = b"\x23\0\0\x20" + NTP[4:]
    assert by_name("ntp").detect(exchange([(UP, quiet_client)], 123)) is Verdict.MATCH
    for query in (b"\x16\2" + bytes(8) + b"\0\4abcd", b"\x17\0\3\x2a" + bytes(4)):
        row, _ = detect(exchange([(UP, query)], 40000, 123))
        assert row is not None
        assert row.name == "ntp"
    packet = b"\x60\0\0\0\0\x08" + bytes(34)
    assert by_name("teredo").detect(exchange([(UP, packet + bytes(8))], 3544)) is Verdict.MATCH
    for port, datagram in (
        (123, NTP[:2] + b"\x40" + NTP[3:]),  # polls every 2^64 seconds
        (123, NTP[:3] + b"\x60" + NTP[4:]),
        (123, b"\x16\2" + bytes(8) + b"\0\4abc"),  # four bytes that are three
        (123, b"\x17\0\x40\x2a" + bytes(40)),
        (3544, packet + bytes(7)),
    ):
        assert detect(exchange([(UP, datagram)], 40000, port)) == (None, True)


def test_what_stays_unclear_ends() -> None:
    assert detect(exchange([(UP, NTP)] * 8, 40000, 9)) == (None, True)


def test_media_are_known_only_where_they_are_announced() -> None:
    rtp, rtcp = b"\x80\x00\x00\x01" + bytes(168), b"\x80\xc8\x00\x06" + bytes(24)
    for datagram, name in ((rtp, "rtp"), (rtcp, "rtcp")):
        assert detect(exchange([(UP, datagram)] * 8, 40000, 5004)) == (None, True)
        row = announced(name, datagram)
        assert row is not None
        assert row.name == name
    assert announced("rtp", rtcp) is None
    assert announced("rtp", b"\x40" + rtp[1:]) is None
    assert announced("nothing", rtp) is None


def test_random_datagrams_match_next_to_nothing() -> None:
    source = Random(20240229)
    usual = sorted({port for row in PROTOCOLS for port in row.ports})
    found = []
    for number in range(3000):
        up = source.randbytes(source.choice((12, 20, 48, 64, 148, 300, 1200)))
        down = source.randbytes(source.choice((12, 20, 48, 92, 300)))
        port = usual[number % len(usual)] if number % 2 else 9999
        row, _ = detect(exchange([(UP, up), (DOWN, down)], 40000, port))
        if row:
            found.append((row.name, port))
    assert [name for name, port in found if port == 9999] == []
    assert len(found) < 30, found


def converse(row: DatagramProtocol, trace: Trace) -> None:
    assert row.converse
    conversation = row.converse(LayerContext())
    for direction, datagram in trace:
        try:
            conversation.take(direction, datagram)
        except (ProtocolError, Short):
            continue
        if conversation.over:
            break
    conversation.details()
    assert conversation.memory < 1 << 18


@given(
    st.sampled_from(sorted(EXCHANGES)),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), max_size=4),
    st.integers(0, 1500),
)
def test_broken_datagrams_raise_nothing_but_protocol_errors(
    name: str, changes: list[tuple[int, int]], cut: int
) -> None:
    for port, trace in EXCHANGES[name]:
        mutants: Trace = []
        for direction, data in trace:
            mutant = bytearray(data)
            for at, byte in changes:
                mutant[at % len(mutant)] = byte
            mutants.append((direction, bytes(mutant[: cut or None])))
        detect(exchange(mutants, port))
        row = by_name(name)
        if row and row.converse:
            converse(row, mutants)
