"""DNS over TCP: the first question, of what is one."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.dns import Dns, detect

UP, DOWN = Direction.UP, Direction.DOWN

NAME = b"\x03www\x07example\x03org\x00"


def message(
    flags: bytes = b"\x01\x20",
    counts: bytes = b"\0\1\0\0\0\0\0\0",
    name: bytes = NAME,
    kind: bytes = b"\0\1",
    of_class: bytes = b"\0\1",
    rest: bytes = b"",
) -> bytes:
    body = b"\x43\x19" + flags + counts + name + kind + of_class + rest
    return len(body).to_bytes(2, "big") + body


QUERY = message()
WITH_EDNS = message(counts=b"\0\1\0\0\0\0\0\1", rest=b"\0\0\x29\x10\0\0\0\0\0\0\0")
RESPONSE = message(b"\x85\x00", b"\0\1\0\2\0\2\0\5", rest=b"\xc0\x0c" + bytes(40))
REFUSED = message(b"\x81\x05")
INVERSE_QUERY = bytes.fromhex("001b87ee09800000000100000000000001000100007a69000404030201")
COOKIE_ALONE = message(  # RFC 7873 §5.4
    b"\0\0",
    b"\0\0\0\0\0\0\0\1",
    b"\0",
    b"\0\x29",
    b"\4\xd0",
    bytes(4) + b"\0\x0c\0\x0a\0\x08" + b"cookie 1",
)


def test_the_first_question(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for first, name, kind in (
            (QUERY, b"www.example.org", "A"),
            (WITH_EDNS, b"www.example.org", "A"),
            (message(name=b"\x00", kind=b"\0\2"), b".", "NS"),
            (message(kind=b"\0\xfc"), b"www.example.org", "AXFR"),
            (message(b"\x28\x00", kind=b"\0\6"), b"www.example.org", "SOA"),
            (message(name=b"\x04_tcp\x02-x\x00", kind=b"\0\x41"), b"_tcp.-x", "HTTPS"),
        ):
            conversation = Dns()
            talk = converse(conversation, [(UP, first), (DOWN, RESPONSE), (UP, QUERY)], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert talk.moved == {UP: first + QUERY, DOWN: RESPONSE}
            assert (conversation.details().name, conversation.details().type) == (name, kind)


def test_an_answer_repeats_the_question(converse: Any) -> None:
    conversation = Dns()
    converse(conversation, [(DOWN, RESPONSE)])
    assert conversation.details_ready
    assert conversation.details().name == b"www.example.org"


def test_other_bytes_raise_protocol_error(converse: Any) -> None:
    with pytest.raises(ProtocolError, match="dns"):
        converse(Dns(), [(UP, b"\x00\x05")])


def test_detection_by_header_and_question() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (b"\x00", Verdict.NEED_MORE),
        (QUERY[:2], Verdict.NEED_MORE),
        (QUERY[:-1], Verdict.NEED_MORE),
        (QUERY, Verdict.MATCH),
        (WITH_EDNS, Verdict.MATCH),
        (RESPONSE, Verdict.MATCH),
        (REFUSED, Verdict.MATCH),
        (b"\x00\x10", Verdict.REJECT),
        (message(b"\x01\x05"), Verdict.REJECT),
        (message(b"\x38\x00"), Verdict.REJECT),
        (message(counts=b"\0\2\0\0\0\0\0\0"), Verdict.REJECT),
        (message(counts=b"\0\1\1\0\0\0\0\0"), Verdict.REJECT),
        (message(name=b"\xc0\x0c"), Verdict.REJECT),
        (
            message(name=b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 2),
            Verdict.REJECT,
        ),
        (message(of_class=b"\0\2"), Verdict.REJECT),
        (b"\x00\x11" + QUERY[2:], Verdict.REJECT),  # the question lies outside of the message
        (b"\x00\x00\x00\x26\x00\x03\x00\x00user\x00", Verdict.REJECT),  # PostgreSQL
        (b"\x00\x3c\x00\x00\x00\x00\x00\x06\x01\x03\x00\x00\x00\x01", Verdict.REJECT),  # Modbus
    ):
        assert detect(Opening(up=up)) is verdict


@pytest.mark.parametrize(
    "up",
    [
        b"\x01\x04\x00\x07" + bytes(7) + b"\x06" + bytes(6) + b"\xff\xff",  # AFP
        b"hrpc\x09\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01",  # Hadoop
        b"\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00",  # WebAssembly
        message(kind=b"\0\0"),
    ],
)
def test_a_request_without_a_question_asks_in_one_of_two_ways(up: bytes) -> None:
    assert detect(Opening(up=up)) is Verdict.REJECT


@pytest.mark.parametrize(
    ("up", "name", "kind"),
    [
        (message(b"\x01\x40"), b"www.example.org", "A"),
        (message(b"\x18\x00"), b"www.example.org", "A"),
        (message(name=b"\x03a b\x00"), b"a b", "A"),
        (message(name=b"\x02\xc3\xa4\x00"), b"\xc3\xa4", "A"),
        (message(kind=b"\x00\x0a"), b"www.example.org", "TYPE10"),
        (message(kind=b"\xff\xfe"), b"www.example.org", "TYPE65534"),
        (INVERSE_QUERY, None, None),
        (COOKIE_ALONE, None, None),
    ],
)
def test_an_unusual_request_needs_its_answer(
    converse: Any, up: bytes, name: bytes | None, kind: str | None
) -> None:
    for end in range(len(up)):
        assert detect(Opening(up=up[:end])) in (Verdict.NEED_MORE, Verdict.LIKELY)
    answer = up[:4] + bytes([up[4] | 0x80, up[5] | 0x05])
    assert detect(Opening(up=up)) is Verdict.LIKELY
    assert detect(Opening(up=up, down=answer[:4])) is Verdict.LIKELY
    assert detect(Opening(up=up, down=answer)) is Verdict.MATCH
    assert detect(Opening(up=up, down=answer[:3] + b"\x20")) is Verdict.REJECT
    assert detect(Opening(up=up, down=up)) is Verdict.REJECT
    conversation = Dns()
    converse(conversation, [(UP, up), (DOWN, answer)])
    assert (conversation.details().name, conversation.details().type) == (name, kind)


@pytest.mark.parametrize(("up_ended", "verdict"), [(False, Verdict.LIKELY), (True, Verdict.MATCH)])
def test_an_answer_alone_is_likely(up_ended: bool, verdict: Verdict) -> None:
    assert detect(Opening(down=RESPONSE, up_ended=up_ended)) is verdict
