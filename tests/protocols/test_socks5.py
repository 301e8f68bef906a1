"""SOCKS5: each session whole, byte by byte, and with inner bytes behind it."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Target,
    Verdict,
)
from mitml4.protocols.socks5 import PROTOCOL, Socks5, detect, method_name

UP, DOWN = Direction.UP, Direction.DOWN
CHUNKS = [None, 1, 3]

GREETING = (UP, b"\x05\x01\x00")
CHOICE = (DOWN, b"\x05\x00")
CONNECT_V4 = (UP, b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb")
CONNECT_V6 = (UP, b"\x05\x01\x00\x04" + bytes.fromhex("20010db8" + "00" * 11 + "01") + b"\x00\x50")
CONNECT_NAME = (UP, b"\x05\x01\x00\x03\x0bexample.com\x01\xbb")
GRANTED = (DOWN, b"\x05\x00\x00\x01\x0a\x00\x00\x01\x04\x38")
GRANTED_V6 = (DOWN, b"\x05\x00\x00\x04" + bytes(16) + b"\x00\x00")
GRANTED_NAME = (DOWN, b"\x05\x00\x00\x03\x05proxy\x04\x38")
AUTH_OFFER = (UP, b"\x05\x02\x00\x02")
AUTH_CHOICE = (DOWN, b"\x05\x02")
AUTH = (UP, b"\x01\x05alice\x06secret")
AUTH_OK = (DOWN, b"\x01\x00")
AUTH_BAD = (DOWN, b"\x01\x01")

OPENED = [
    ("ipv4", [GREETING, CHOICE, CONNECT_V4, GRANTED], Target("192.0.2.1", 443)),
    ("ipv6", [GREETING, CHOICE, CONNECT_V6, GRANTED_V6], Target("2001:db8::1", 80)),
    ("name", [GREETING, CHOICE, CONNECT_NAME, GRANTED_NAME], Target("example.com", 443)),
    (
        "password",
        [AUTH_OFFER, AUTH_CHOICE, AUTH, AUTH_OK, CONNECT_NAME, GRANTED],
        Target("example.com", 443),
    ),
    (
        "pipelined request",
        [AUTH_OFFER, AUTH_CHOICE, AUTH, CONNECT_NAME, AUTH_OK, GRANTED],
        Target("example.com", 443),
    ),
    (
        "all the client's at once",
        [(UP, AUTH_OFFER[1] + AUTH[1] + CONNECT_V4[1]), AUTH_CHOICE, AUTH_OK, GRANTED],
        Target("192.0.2.1", 443),
    ),
    (
        "all the server's at once, early",
        [(DOWN, CHOICE[1] + GRANTED[1]), GREETING, CONNECT_V4],
        Target("192.0.2.1", 443),
    ),
]

PASSED: list[tuple[str, list[tuple[Direction, bytes]], dict[str, Any]]] = [
    (
        "no acceptable method",
        [GREETING, (DOWN, b"\x05\xff")],
        {"method": "no acceptable methods", "reply": None},
    ),
    (
        "bad password",
        [AUTH_OFFER, AUTH_CHOICE, AUTH, AUTH_BAD],
        {"username": b"alice", "reply": "authentication failed", "command": None},
    ),
    (
        "gssapi",
        [(UP, b"\x05\x02\x00\x01"), (DOWN, b"\x05\x01"), (UP, b"\x01\x01\x00\x02hi")],
        {"method": "gssapi", "command": None},
    ),
    (
        "private method",
        [(UP, b"\x05\x01\x80"), (DOWN, b"\x05\x80"), (UP, b"anything"), (DOWN, b"at all")],
        {"method": "private 0x80"},
    ),
    (
        "bind",
        [GREETING, CHOICE, (UP, b"\x05\x02" + CONNECT_V4[1][2:]), GRANTED, GRANTED],
        {"command": "bind", "reply": "succeeded", "target": Target("192.0.2.1", 443)},
    ),
    (
        "udp associate",
        [GREETING, CHOICE, (UP, b"\x05\x03" + CONNECT_V4[1][2:]), GRANTED],
        {"command": "udp associate", "reply": "succeeded"},
    ),
    (
        "a command of Tor's",
        [GREETING, CHOICE, (UP, b"\x05\xf0" + CONNECT_NAME[1][2:]), GRANTED],
        {"command": "unknown 0xf0", "reply": "succeeded"},
    ),
    *(
        (
            f"refused with {code}",
            [GREETING, CHOICE, CONNECT_V4, (DOWN, bytes([5, code, 0, 1]) + bytes(6))],
            {"command": "connect", "reply": name},
        )
        for code, name in [
            (1, "general SOCKS server failure"),
            (2, "connection not allowed by ruleset"),
            (3, "network unreachable"),
            (4, "host unreachable"),
            (5, "connection refused"),
            (6, "TTL expired"),
            (7, "command not supported"),
            (8, "address type not supported"),
            (9, "unassigned 0x09"),
        ]
    ),
]


def ids(table: list[Any]) -> list[str]:
    return [case[0] for case in table]


def test_a_connect_that_succeeds_opens_both_sides(converse: Any) -> None:
    for chunk in CHUNKS:
        for _name, script, target in OPENED:
            conversation = Socks5()
            inner_up, inner_down = b"\x16\x03\x01 hello", b"220 hello"
            talk = converse(
                conversation, [*script, (UP, inner_up), (DOWN, inner_down)], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (inner_up, inner_down)
            assert conversation.details_ready
            assert conversation.target == target
            assert conversation.details().target == target
            assert conversation.details().command == "connect"
            assert conversation.details().reply == "succeeded"


def test_whatever_does_not_open_is_named_and_passes(converse: Any) -> None:
    for chunk in CHUNKS:
        for _name, script, known in PASSED:
            conversation = Socks5()
            talk = converse(conversation, [*script, (UP, b"more"), (DOWN, b"more")], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert not talk.kept[DOWN]
            assert conversation.details_ready
            details = conversation.details()
            assert {name: getattr(details, name) for name in known} == known


def test_an_optimistic_client_keeps_its_inner_bytes_until_the_reply(converse: Any) -> None:
    conversation = Socks5()
    talk = converse(conversation, [(UP, GREETING[1] + CONNECT_V4[1] + b"\x16\x03"), CHOICE])
    assert conversation.up is PAUSE
    assert talk.kept[UP] == b"\x16\x03"


@pytest.mark.parametrize("count", [1, 2, 4, 10, 100, 254, 255])
def test_any_number_of_methods_is_a_greeting(converse: Any, count: int) -> None:
    greeting = bytes([5, count, *range(count)])
    assert detect(Opening(up=greeting)) is Verdict.MATCH
    conversation = PROTOCOL.converse(LayerContext()) if PROTOCOL.converse else None
    assert isinstance(conversation, Socks5)
    converse(conversation, [(UP, greeting), CHOICE, CONNECT_V4, GRANTED], chunk=1)
    offered = conversation.details().methods_offered
    assert offered is not None
    assert len(offered) == count
    assert conversation.up is SWITCH


def test_the_password_is_nowhere_in_the_details(converse: Any) -> None:
    conversation = Socks5()
    converse(conversation, OPENED[3][1])
    assert conversation.details().username == b"alice"
    assert "secret" not in repr(conversation.details()) + repr(conversation)


@pytest.mark.parametrize(
    "script",
    [
        [GREETING, (DOWN, b"\x04\x00")],
        [GREETING, (DOWN, b"\x05\x02")],
        [GREETING, CHOICE, (UP, b"\x04\x01")],
        [GREETING, CHOICE, (UP, b"\x05\x01\x00\x02\x00")],
        [AUTH_OFFER, AUTH_CHOICE, (UP, b"\x05\x01\x00\x01")],
        [GREETING, CHOICE, CONNECT_V4, (DOWN, b"HTTP")],
        [GREETING, CHOICE, CONNECT_V4, (DOWN, b"\x05\x00\x00\x09\x00")],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="socks5: "):
        converse(Socks5(), script)


def test_the_servers_bytes_pass_after_the_client_has_left(converse: Any) -> None:
    talk = converse(Socks5(), [(UP, b"\x05\x02\x00"), (DOWN, b"what?"), (UP, None)])
    assert talk.moved[UP] == b"\x05\x02\x00"
    assert talk.moved[DOWN] == b"what?"


def test_the_clients_bytes_pass_when_the_server_left_early(converse: Any) -> None:
    conversation = Socks5()
    talk = converse(conversation, [GREETING, (UP, b"pipelined"), (DOWN, None)])
    assert talk.moved[UP] == GREETING[1] + b"pipelined"
    assert conversation.details_ready


def test_detection_by_the_greeting() -> None:
    for up, verdict in (
        (b"\x05", Verdict.NEED_MORE),
        (b"\x05\x02", Verdict.NEED_MORE),
        (b"\x05\x02\x00", Verdict.NEED_MORE),
        (b"\x05\x02\x00\x02", Verdict.MATCH),
        (b"\x05\x01\x00\x05\x01\x00", Verdict.MATCH),
        (b"\x05\x04\x00\x00\x00\x00", Verdict.MATCH),
        (b"\x05\x02\x00\x80", Verdict.MATCH),
        (b"\x05\x01\x80", Verdict.NEED_MORE),
        (b"\x05\x03\xbb\xe4\xef", Verdict.NEED_MORE),
        (b"\x05\x02\x03\x04", Verdict.REJECT),
        (b"\x05\x00\x0b", Verdict.REJECT),  # DCE/RPC bind
        (b"\x05\x01\x0b", Verdict.REJECT),
        (b"\x05\x01\xff", Verdict.REJECT),
        (b"\x05\x02\x02\xff", Verdict.REJECT),
        (b"\x05\x05hello", Verdict.REJECT),
        (b"\x04\x01\x00", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


def test_private_methods_are_certain_with_the_choice_of_one() -> None:
    up = b"\x05\x03\xbb\xe4\xef"
    for down in (b"\x05\xe4", b"\x05\xff\x00"):
        assert detect(Opening(up=up, down=down)) is Verdict.MATCH
    assert detect(Opening(up=up, down=b"\x05")) is Verdict.NEED_MORE
    assert detect(Opening(up=up, down=b"\x05\x00")) is Verdict.REJECT


def test_a_greeting_that_ends_too_early_is_none() -> None:
    for up in (b"\x05", b"\x05\x02", b"\x05\x02\x00"):
        assert detect(Opening(up=up, up_ended=True)) is Verdict.REJECT


@pytest.mark.parametrize(
    ("down", "verdict"),
    [
        (b"\x05", Verdict.NEED_MORE),
        (b"\x05\x00\x05\x00\x00\x01\x7f\0\0", Verdict.NEED_MORE),
        (b"\x05\x00\x05\x00\x00\x01\x7f\0\0\1", Verdict.LIKELY),
        (b"\x05\x02\x01\x00\x05\x05\x00\x01\x7f\0\0\1", Verdict.LIKELY),
        (b"\x05\x02\x01\x01", Verdict.REJECT),
        (b"\x05\xff", Verdict.REJECT),
        (b"\x05\x00\x05\x09", Verdict.REJECT),
        (b"\x05\x00\x05\x00\x00\x02", Verdict.REJECT),
        (b"\x05\x00\x0b\x03", Verdict.REJECT),  # DCE/RPC
    ],
)
def test_detection_by_the_answers_alone(down: bytes, verdict: Verdict) -> None:
    assert detect(Opening(down=down)) is verdict
    ended = Verdict.MATCH if verdict is Verdict.LIKELY else verdict
    assert detect(Opening(down=down, up_ended=True)) is ended
    assert detect(Opening(down=down, up=b"GET ")) is Verdict.REJECT


def test_methods_have_names() -> None:
    assert method_name(0x06) == "ssl"
    assert method_name(0x0A) == "unassigned 0x0a"
    assert method_name(0xFE) == "private 0xfe"
