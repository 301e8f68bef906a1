"""What is read from resolvers' answers, and what is answered in their place."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.net.namespace.dns_message import (
    Code,
    Question,
    addresses_in,
    answer_without,
    for_datagram,
    is_truncated,
    question_of,
    without_options,
)

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
    answer_without(data, Code.SERVER_FAILURE)
    question_of(data)
    list(addresses_in(answer(record(POINTER, A, PACKED_V4))[:20] + data))


def test_a_failure_answers_the_question_and_says_servfail() -> None:
    told = answer_without(query(), Code.SERVER_FAILURE)
    number, flags, questions, answers, _, _ = struct.unpack_from("!6H", told)
    assert (number, questions, answers) == (0x1234, 1, 0)
    assert flags & 0x8000
    assert flags & 0x000F == 2
    assert told[12:] == query()[12:]


def test_only_a_query_is_answered_with_a_failure() -> None:
    assert answer_without(answer(), Code.SERVER_FAILURE) is None
    assert answer_without(b"x", Code.SERVER_FAILURE) is None


def test_a_query_with_two_questions_is_malformed() -> None:
    two = query()[:5] + b"\x02" + query()[6:] + query()[12:]
    assert answer_without(two, Code.REFUSED) == two[:2] + b"\x81\x81" + bytes(8)


@pytest.mark.parametrize("asked", [query(), query("WWW.a-b_c.example", AAAA)])
def test_a_question_is_asked_as_it_was_read(asked: bytes) -> None:
    assert question_of(asked).query(0x1234) == asked


def test_the_question_of_a_plain_query_is_read() -> None:
    asked = question_of(query("WWW.a-b_c.example", AAAA))
    assert asked == Question("WWW.a-b_c.example", AAAA)
    assert question_of(query()[:11] + b"\x01" + query()[12:] + b"\0\0\x29" + bytes(8))
    assert not asked.is_binding
    assert Question("www.example", 65).is_binding


def test_a_query_that_a_resolver_might_read_otherwise_has_none() -> None:
    plain = query()
    for changed in (
        answer(),
        plain[:2] + b"\x29\x00" + plain[4:],  # UPDATE
        plain[:5] + b"\x02" + plain[6:],
        plain[:7] + b"\x01" + plain[8:],
        plain[:9] + b"\x01" + plain[10:],
        plain[:11] + b"\x02" + plain[12:],
        plain[:-1] + b"\x03",  # CHAOS
        query("www.example.\0")[:-5],
        plain[:12] + b"\xc0\x0c" + plain[-4:],
        plain[:12] + b"\x0bwww.example\0" + plain[-4:],
        plain[:12] + b"\x01\xff\0" + plain[-4:],
        plain[:12] + b"\0" + plain[-4:],
        b"",
    ):
        assert question_of(changed) is None, changed


def with_options(message: bytes, size: int, options: bytes = b"") -> bytes:
    opt = b"\0" + struct.pack("!HHIH", 41, size, 0, len(options)) + options
    return message[:11] + b"\x01" + message[12:] + opt


COOKIE = b"\0\x0a\0\x08abcdefgh"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (query(), with_options(query(), 4096)),
        (with_options(query(), 1232), with_options(query(), 4096)),
        (with_options(query(), 512, COOKIE), with_options(query(), 4096, COOKIE)),
        (answer(record(POINTER, A, PACKED_V4)), answer(record(POINTER, A, PACKED_V4))),
        (b"\0\0", b"\0\0"),
    ],
)
def test_a_query_asks_for_an_answer_in_one_datagram(asked: bytes, expected: bytes) -> None:
    assert for_datagram(asked) == expected
    assert for_datagram(expected) == expected


def test_an_answer_has_options_if_its_query_has() -> None:
    plain = answer(record(POINTER, A, PACKED_V4))
    answered = with_options(plain, 1232, COOKIE)
    assert without_options(answered, query()) == plain
    assert without_options(answered, with_options(query(), 1232)) == answered
    assert without_options(plain, query()) == plain


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_what_cannot_be_read_stays(message: bytes, asked: bytes) -> None:
    for each in (message, answer(message)[:-1]):
        assert len(for_datagram(each)) in (len(each), len(each) + 11)
        assert len(without_options(each, asked)) <= len(each)
    assert not is_truncated(message[:11])
