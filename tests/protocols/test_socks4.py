"""SOCKS4 and 4a: each session whole, byte by byte, and with inner bytes behind it."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, SWITCH, Direction, Opening, Target, Verdict
from mitml4.protocols.socks4 import Socks4, detect

UP, DOWN = Direction.UP, Direction.DOWN

CONNECT = b"\x04\x01\x01\xbb\xc0\x00\x02\x01alice\x00"
CONNECT_4A = b"\x04\x01\x00\x50\x00\x00\x00\x07\x00example.com\x00"
BIND = b"\x04\x02" + CONNECT[2:]
GRANTED = b"\x00\x5a\x04\x38\x0a\x00\x00\x01"


def test_a_connect_that_is_granted_opens_both_sides(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for reply in (GRANTED, b"\x04" + GRANTED[1:]):
            for request_bytes, target, userid in (
                (CONNECT, Target("192.0.2.1", 443), b"alice"),
                (CONNECT_4A, Target("example.com", 80), b""),
            ):
                conversation = Socks4()
                inner_up, inner_down = b"\x16\x03\x01", b"220 hi"
                script = [(UP, request_bytes + inner_up), (DOWN, reply + inner_down)]
                talk = converse(conversation, script, chunk=chunk)
                assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
                assert (talk.kept[UP], talk.kept[DOWN]) == (inner_up, inner_down)
                assert conversation.details_ready
                assert conversation.target == target
                details = conversation.details()
                assert (details.username, details.command) == (userid, "connect")
                assert (details.target, details.reply) == (target, "request granted")


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("request_bytes", "code", "reply"),
    [
        (CONNECT, 0x5B, "request rejected or failed"),
        (CONNECT, 0x5C, "rejected: no identd on the client"),
        (CONNECT_4A, 0x5D, "rejected: identd reports another user"),
        (BIND, 0x5A, "request granted"),
    ],
)
def test_a_refusal_and_a_bind_are_named_and_pass(
    converse: Any, request_bytes: bytes, code: int, reply: str, chunk: int | None
) -> None:
    conversation = Socks4()
    script = [(UP, request_bytes), (DOWN, bytes([0, code]) + bytes(6)), (DOWN, b"x"), (UP, b"y")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]
    assert conversation.details_ready
    assert conversation.details().reply == reply


@pytest.mark.parametrize(
    "script",
    [
        [(UP, CONNECT), (DOWN, b"HTTP/1.1")],
        [(UP, CONNECT), (DOWN, b"\x00\x5e")],
        [(UP, b"\x04\x09")],
        [(UP, CONNECT[:8] + b"x" * 513)],
        [(UP, CONNECT_4A[:9] + b"\x00")],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="socks4: "):
        converse(Socks4(), script)


def test_whoever_leaves_early_lets_the_others_bytes_pass(converse: Any) -> None:
    talk = converse(Socks4(), [(UP, CONNECT[:5]), (DOWN, b"early"), (UP, None)])
    assert talk.moved[DOWN] == b"early"
    talk = converse(Socks4(), [(UP, CONNECT + b"inner"), (DOWN, None)])
    assert talk.moved[UP] == CONNECT + b"inner"


def test_detection_by_the_whole_request() -> None:
    for up, verdict in (
        (b"\x04", Verdict.NEED_MORE),
        (CONNECT[:-1], Verdict.NEED_MORE),
        (CONNECT, Verdict.MATCH),
        (CONNECT[:8] + b"\x00", Verdict.LIKELY),
        (CONNECT_4A[:9], Verdict.NEED_MORE),
        (CONNECT_4A[:-1], Verdict.NEED_MORE),
        (CONNECT_4A + b"\x16\x03\x01", Verdict.MATCH),
        (BIND, Verdict.MATCH),
        (b"\x04\x00\x00\x00\x05", Verdict.REJECT),  # Cassandra v4 OPTIONS
        (b"\x04\x01\x00\x00\x01\x00\x00\x00\x16\x00", Verdict.REJECT),  # compressed, stream 0
        (b"\x04\x01\x00\x50\x00\x00\x00\x00", Verdict.REJECT),
        (b"\x04\x01\x00\x1a\x00\x34\x01\x00\x00", Verdict.REJECT),  # TDS: an answer
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01a\xffb\x00", Verdict.REJECT),
        (CONNECT[:8] + b"a" * 512, Verdict.NEED_MORE),
        (CONNECT[:8] + b"a" * 512 + b"\x00", Verdict.MATCH),
        (CONNECT[:8] + b"a" * 513 + b"\x00", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


def test_a_request_without_a_text_is_certain_with_its_reply() -> None:
    up = CONNECT[:8] + b"\x00"
    for down in (GRANTED[:2], b"\x04\x5b"):
        assert detect(Opening(up=up, down=down[:1])) is Verdict.LIKELY
        assert detect(Opening(up=up, down=down)) is Verdict.MATCH
    for down in (b"\x00\x5e", b"\x00\x00", b"220"):
        assert detect(Opening(up=up, down=down)) is Verdict.REJECT
