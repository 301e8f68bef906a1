"""DNS over UDP: what was asked, what the answer was, and what addresses are called then."""

from __future__ import annotations

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Direction
from mitml4.protocols.datagram import Resolved
from mitml4.protocols.datagrams.dns import DnsExchange, MdnsExchange, NetbiosNames, skip_name
from mitml4.protocols.parts.fields import Reader

UP, DOWN = Direction.UP, Direction.DOWN
NAME = b"\7example\3com\0"


def message(id: int, flags: int, *records: bytes, question: bytes = NAME + b"\0\1\0\1") -> bytes:
    counts = (1 if question else 0, len(records), 0, 0)
    head = b"".join(number.to_bytes(2) for number in (id, flags, *counts))
    return head + question + b"".join(records)


def record(kind: int, data: bytes, name: bytes = b"\xc0\x0c") -> bytes:
    return name + kind.to_bytes(2) + b"\0\1\0\0\1\x2c" + len(data).to_bytes(2) + data


def test_an_answer_is_shown_with_the_question_and_names_its_addresses() -> None:
    dns = DnsExchange()
    dns.take(UP, message(7, 0x0100))
    assert not dns.details_ready
    alias = record(5, b"\3cdn\xc0\x0c")
    answer = message(
        7, 0x8180, alias, record(1, b"\x5d\xb8\xd8\x22"), record(28, bytes(15) + b"\1")
    )
    dns.take(DOWN, answer)
    assert dns.details_ready
    details = dns.details()
    assert (details.name, details.type, details.code) == (b"example.com", "A", None)
    assert details.addresses == ("93.184.216.34", "::1")
    assert dns.resolved == [
        Resolved("example.com", "93.184.216.34"),
        Resolved("example.com", "::1"),
    ]


def test_a_refusal_has_its_code() -> None:
    for code, name in ((3, "NXDOMAIN"), (2, "SERVFAIL"), (5, "REFUSED")):
        dns = DnsExchange()
        dns.take(UP, message(7, 0x0100))
        dns.take(DOWN, message(7, 0x8180 | code))
        assert dns.details().code == name
        assert dns.resolved == []


def test_the_header_counts_though_the_question_was_seen_before() -> None:
    DnsExchange().take(UP, message(7, 0x0100))
    with pytest.raises(ProtocolError, match="unknown operation"):
        DnsExchange().take(UP, message(8, 0x7900))


def test_the_answer_to_another_question_is_not_the_firsts() -> None:
    dns = DnsExchange()
    dns.take(UP, message(7, 0x0100))
    other = b"\5other\0\0\1\0\1"
    dns.take(DOWN, message(8, 0x8180, record(1, b"\1\2\3\4"), question=other))
    assert not dns.details_ready
    assert dns.resolved == [Resolved("other", "1.2.3.4")]


def test_multicast_answers_name_addresses_for_everybody() -> None:
    mdns = MdnsExchange()
    name = b"\7printer\5local\0"
    mdns.take(UP, message(0, 0x8400, record(1, b"\x0a\0\0\7", name=name), question=b""))
    assert mdns.resolved == [Resolved("printer.local", "10.0.0.7", for_everybody=True)]
    assert mdns.details().name == b"printer.local"


def test_a_netbios_name_is_put_together_from_its_halves() -> None:
    netbios = NetbiosNames()
    letters = b"".join(bytes([65 + (byte >> 4), 65 + (byte & 15)]) for byte in b"SERVER         \0")
    head = b"\x12\x34\x01\x10\0\1" + bytes(6)
    netbios.take(UP, head + b"\x20" + letters + b"\0" + b"\0\x20\0\1")
    assert netbios.details().name == b"SERVER"


def test_names_that_point_at_themselves_end() -> None:
    for data in (b"\xc0\0", b"\1a\xc0\0", b"\xc0\x02\xc0\0"):
        with pytest.raises(ProtocolError):
            skip_name(Reader(data, 0, len(data)))
