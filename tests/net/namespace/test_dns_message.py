"""What is read from resolvers' answers, and what is answered in their place."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.net.namespace.dns_message import addresses_in, failure

A, CNAME, AAAA = 1, 5, 28


def name(text: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def query(asked: str = "www.example", kind: int = A) -> bytes:
    return (
        struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, 0) + name(asked) + struct.pack("!HH", kind, 1)
    )


def record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


def answer(*records: bytes, asked: str = "www.example") -> bytes:
    header = struct.pack("!6H", 0x1234, 0x8180, 1, len(records), 0, 0)
    return header + query(asked)[12:] + b"".join(records)


POINTER = b"\xc0\x0c"
V4, V6 = "198.51.100.2", "2001:db8::2"
PACKED_V4, PACKED_V6 = (ipaddress.ip_address(each).packed for each in (V4, V6))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (answer(record(POINTER, A, PACKED_V4)), [(V4, "www.example")]),
        (answer(record(POINTER, AAAA, PACKED_V6)), [(V6, "www.example")]),
        (answer(record(name("www.example"), A, PACKED_V4)), [(V4, "www.example")]),
        # An alias leads to the address: the name is the one that was asked for.
        (
            answer(
                record(POINTER, CNAME, name("edge.cdn.example")),
                record(name("edge.cdn.example"), A, PACKED_V4),
            ),
            [(V4, "www.example")],
        ),
        (answer(record(POINTER, A, PACKED_V4[:3])), []),
        (answer(), []),
        (query(), []),
        (b"", []),
    ],
)
def test_addresses_have_the_name_that_was_asked_for(message, expected) -> None:
    assert list(addresses_in(message)) == expected


def test_a_cut_answer_gives_nothing_that_is_not_there() -> None:
    for length in range(40):
        assert list(addresses_in(answer(record(POINTER, A, PACKED_V4))[:length])) == []


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    list(addresses_in(data))
    failure(data)
    list(addresses_in(answer(record(POINTER, A, PACKED_V4))[:20] + data))


def test_a_failure_answers_the_question_and_says_servfail() -> None:
    told = failure(query())
    number, flags, questions, answers, _, _ = struct.unpack_from("!6H", told)
    assert (number, questions, answers) == (0x1234, 1, 0)
    assert flags & 0x8000
    assert flags & 0x000F == 2
    assert told[12:] == query()[12:]


def test_only_a_query_is_answered_with_a_failure() -> None:
    assert failure(answer()) is None
    assert failure(b"x") is None
