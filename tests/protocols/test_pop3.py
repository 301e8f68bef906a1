"""POP3: the question of STLS, decided once, whatever else is said."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Verdict,
)
from mitml4.protocols.pop3 import Pop3, detect

UP, DOWN = Direction.UP, Direction.DOWN

GREETING = (DOWN, b"+OK lavad\r\n")
STLS = (UP, b"stls\r\n")
OK = (DOWN, b"+OK\r\n")
ERR = (DOWN, b"-ERR no\r\n")
CAPA = [(UP, b"CAPA\r\n"), (DOWN, b"+OK these\r\nSTLS\r\n+OK\r\n-ERR\r\n.\r\n")]
USER = [(UP, b"USER alice\r\n"), OK]

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "at once": [GREETING, STLS, OK],
    "capabilities first": [GREETING, *CAPA, STLS, OK],
    "refused once": [GREETING, STLS, ERR, STLS, OK],
    "login refused": [GREETING, *USER, (UP, b"PASS x\r\n"), ERR, STLS, OK],
    "list of mechanisms": [GREETING, (UP, b"AUTH\r\n"), (DOWN, b"+OK\r\nPLAIN\r\n.\r\n"), STLS, OK],
    "a response that looks like STLS": [
        GREETING,
        (UP, b"AUTH LOGIN\r\n"),
        (DOWN, b"+ \r\n"),
        (UP, b"STLS\r\n"),
        ERR,
        STLS,
        OK,
    ],
    "pipelined": [GREETING, (UP, b"CAPA\r\nUSER a\r\nSTLS\r\n"), CAPA[1], OK, OK],
}


def test_tls_begins_right_behind_the_servers_yes(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = Pop3()
            script = [*UPGRADED[name], (UP, b"\x16\x03\n"), (DOWN, b"\x16\x03\n")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\n", b"\x16\x03\n")
            assert conversation.details().upgraded
            assert conversation.details().greeting == b"lavad"


PLAIN: dict[str, list[tuple[Direction, bytes]]] = {
    "password": [GREETING, *USER, (UP, b"PASS secret\r\n"), OK],
    "digest": [GREETING, (UP, b"APOP alice c4c9334bac560ecc979e58001b3e22fb\r\n"), OK],
    "plain": [GREETING, (UP, b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"), OK],
    "plain, after a challenge": [
        GREETING,
        (UP, b"AUTH PLAIN\r\n"),
        (DOWN, b"+ \r\n"),
        (UP, b"AGFsaWNlAHNlY3JldA==\r\n"),
        OK,
    ],
    "login": [
        GREETING,
        (UP, b"AUTH login\r\n"),
        (DOWN, b"+ VXNlcm5hbWU6\r\n"),
        (UP, b"YWxpY2U=\r\n"),
        (DOWN, b"+ UGFzc3dvcmQ6\r\n"),
        (UP, b"c2VjcmV0\r\n"),
        OK,
    ],
    "quit": [GREETING, *USER, (UP, b"QUIT\r\n")],
}


def test_behind_a_login_all_passes(converse: Any) -> None:
    for chunk in (None, 1):
        for name in PLAIN:
            conversation = Pop3()
            talk = converse(
                conversation, [*PLAIN[name], (UP, b"STLS\r\nx"), (DOWN, b"x")], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert not conversation.details().upgraded
            assert conversation.details().username == b"alice"
            assert "secret" not in repr(conversation)


def test_inside_its_own_tls_the_client_begins(converse: Any) -> None:
    conversation = Pop3(context=LayerContext(secure=True, stack=("pop3", "tls")))
    converse(conversation, [*CAPA, *USER, (UP, b"PASS x\r\n"), OK])
    assert conversation.up is FORWARD_ALL
    assert conversation.details().greeting is None


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("reply", [b"hello\r\n", b"OK\r\n", b"+NO\r\n", b"+OK\r\n.\r\n"])
def test_bytes_that_break_the_protocol_raise_protocol_error(
    converse: Any, reply: bytes, chunk: int | None
) -> None:
    with pytest.raises(ProtocolError):
        converse(Pop3(), [(DOWN, reply)], chunk=chunk)


def test_detection_by_greeting_and_command() -> None:
    for up, down, verdict in (
        (b"", b"+O", Verdict.NEED_MORE),
        (b"", b"+OK ready\r\n", Verdict.LIKELY),
        (b"", b"+OK\r\n", Verdict.NEED_MORE),
        (b"", b"+OKAY", Verdict.REJECT),
        (b"", b"-ERR ", Verdict.NEED_MORE),
        (b"", b"-ERROR", Verdict.REJECT),
        (b"USER x\r\n", b"-ERR too many connections\r\n", Verdict.MATCH),
        (b"XYZZY\r\n", b"+OK Dovecot (Debian) ready.\r\n-ERR Unkn", Verdict.LIKELY),
        (b"LANG\r\n", b"+OK <1896.697170952@dbc.mtview.ca.us>\r\n", Verdict.LIKELY),
        (b"COUNT\r\n", b"+OK 5 items\r\n", Verdict.NEED_MORE),
        (b"USER x", b"+OK ready\r\n", Verdict.MATCH),
        (b"capa\r\n", b"+OK\r\n", Verdict.MATCH),
        (b"QUIT\r\n", b"+OK ready\r\n", Verdict.MATCH),
        (b"QUIT\r\n", b"+OK\r\n", Verdict.NEED_MORE),
        (b"AUTH secret\r\n", b"+OK\r\n", Verdict.NEED_MORE),
        (b"PING\r\n", b"+PONG\r\n", Verdict.REJECT),
        (b"USER x\r\n", b"220 FTP\r\n", Verdict.REJECT),
        (b"USER x\r\nPASS y\r\nUIDL\r\n", b"", Verdict.LIKELY),
        (b"USER x\r\nPASS y\r\n", b"", Verdict.NEED_MORE),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_behind_stls_the_client_needs_no_greeting() -> None:
    assert detect(Opening(up=b"AUTH PLAIN\r\n", stack=("pop3", "tls"))) is Verdict.MATCH
    assert detect(Opening(up=b"AUTH PLAIN\r\n", stack=("tls",))) is Verdict.NEED_MORE
