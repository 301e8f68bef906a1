"""NNTP: the question of STARTTLS, decided once, whatever else is said."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.nntp import Nntp, detect

UP, DOWN = Direction.UP, Direction.DOWN

GREETING = (DOWN, b"200 news.example ready\r\n")
STARTTLS = (UP, b"STARTTLS\r\n")
GO = (DOWN, b"382 Continue\r\n")
CAPABILITIES = [
    (UP, b"CAPABILITIES\r\n"),
    (DOWN, b"101 these\r\nVERSION 2\r\n382 x\r\nSTARTTLS\r\n.\r\n"),
]
USER = [(UP, b"AUTHINFO USER alice\r\n"), (DOWN, b"381 Password\r\n")]

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "at once": [GREETING, STARTTLS, GO],
    "usual": [GREETING, *CAPABILITIES, STARTTLS, GO],
    "reader": [GREETING, (UP, b"MODE READER\r\n"), (DOWN, b"200 hi\r\n"), STARTTLS, GO],
    "refused once": [GREETING, STARTTLS, (DOWN, b"580 no\r\n"), STARTTLS, GO],
    "group refused": [GREETING, (UP, b"GROUP a.b\r\n"), (DOWN, b"480 login\r\n"), STARTTLS, GO],
    "login refused": [
        GREETING,
        *USER,
        (UP, b"AUTHINFO PASS x\r\n"),
        (DOWN, b"481 no\r\n"),
        STARTTLS,
        GO,
    ],
    "a response that looks like STARTTLS": [
        GREETING,
        (UP, b"AUTHINFO SASL LOGIN\r\n"),
        (DOWN, b"383 VXNlcm5hbWU6\r\n"),
        (UP, b"STARTTLS\r\n"),
        (DOWN, b"481 no\r\n"),
        STARTTLS,
        GO,
    ],
    "help": [GREETING, (UP, b"HELP\r\n"), (DOWN, b"100 help\r\n382 no\r\n.\r\n"), STARTTLS, GO],
}


def test_tls_begins_right_behind_382(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = Nntp()
            script = [*UPGRADED[name], (UP, b"\x16\x03\n"), (DOWN, b"\x16\x03\n")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\n", b"\x16\x03\n")
            assert conversation.details().upgraded
            assert conversation.details().greeting == b"news.example ready"


PLAIN: dict[str, list[tuple[Direction, bytes]]] = {
    "login": [GREETING, *USER, (UP, b"AUTHINFO PASS secret\r\n"), (DOWN, b"281 ok\r\n")],
    "sasl": [
        GREETING,
        (UP, b"AUTHINFO SASL PLAIN AGFsaWNlAHNlY3JldA==\r\n"),
        (DOWN, b"281 ok\r\n"),
    ],
    "group": [GREETING, *USER, (UP, b"GROUP a.b\r\n"), (DOWN, b"211 1 1 1 a.b\r\n")],
    "list": [GREETING, *USER, (UP, b"LIST\r\n"), (DOWN, b"215 list\r\n")],
    "post": [GREETING, *USER, (UP, b"POST\r\n"), (DOWN, b"340 go\r\n")],
    "feed": [GREETING, *USER, (UP, b"TAKETHIS <1@a>\r\n")],
}


def test_once_something_is_granted_all_passes(converse: Any) -> None:
    for chunk in (None, 1):
        for name in PLAIN:
            conversation = Nntp()
            script = [*PLAIN[name], (UP, b"STARTTLS\r\nx"), (DOWN, b"382 x\r\nx")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert not conversation.details().upgraded
            assert conversation.details().username == b"alice"
            assert "secret" not in repr(conversation)


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("reply", [b"hello\r\n", b"2000 x\r\n", b"700 x\r\n", b"200-x\r\n"])
def test_bytes_that_break_the_protocol_raise_protocol_error(
    converse: Any, reply: bytes, chunk: int | None
) -> None:
    with pytest.raises(ProtocolError):
        converse(Nntp(), [(DOWN, reply)], chunk=chunk)


def test_detection_by_greeting_and_command() -> None:
    for up, down, verdict in (
        (b"", b"20", Verdict.NEED_MORE),
        (b"", b"200 hi\r\n", Verdict.NEED_MORE),
        (b"", b"200 NNTP\r\n", Verdict.LIKELY),
        (b"", b"202 hi\r\n", Verdict.REJECT),
        (b"MODE READER\r\n", b"200 hi\r\n", Verdict.MATCH),
        (b"MODE READER", b"200 hi\r\n", Verdict.NEED_MORE),
        (b"MODE S\r\n", b"200 hi\r\n", Verdict.NEED_MORE),
        (b"GROUP a\r\n", b"201 ", Verdict.MATCH),
        (b"LIST\r\n", b"200 hi\r\n", Verdict.NEED_MORE),
        (b"LIST\r\n", b"200 NNTP\r\n", Verdict.MATCH),
        (b"EHLO x\r\n", b"200 NNTP\r\n", Verdict.LIKELY),
        (b"\x16\x03\x01", b"200 NNTP\r\n", Verdict.REJECT),
        (b"", b"201 news.example InterNetNews NNRP server INN 2.7.1 ready\r\n", Verdict.LIKELY),
        (b"", b"200 beginning of a list\r\n", Verdict.NEED_MORE),
        (b"", b"400 news.example is not accepting articles\r\n", Verdict.LIKELY),
        (b"", b"503 Leafnode must have a domain name.\r\n", Verdict.LIKELY),
        (b"MODE READER\r\n", b"502 You have no permission to talk.\r\n", Verdict.MATCH),
        (b"MODE READER\r\nXOVER 1\r\n", b"", Verdict.LIKELY),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_behind_starttls_the_client_needs_no_greeting() -> None:
    assert detect(Opening(up=b"LIST\r\n", stack=("nntp", "tls"))) is Verdict.MATCH
