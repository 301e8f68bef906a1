"""FTP: whose `220` it is, and where AUTH TLS begins."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols import smtp
from mitml4.protocols.conversation import (
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Verdict,
)
from mitml4.protocols.ftp import Ftp, detect
from mitml4.protocols.parts.login import MAX_UNDER_WAY
from mitml4.protocols.parts.tail import COPIED

UP, DOWN = Direction.UP, Direction.DOWN

GREETING = (DOWN, b"220 (vsFTPd 3.0.3)\r\n")
AUTH = (UP, b"AUTH TLS\r\n")
GO = (DOWN, b"234 Proceed\r\n")
USER = (UP, b"USER alice\r\n")
ASKS = (DOWN, b"331 Password?\r\n")
PASS = (UP, b"PASS sesame\r\n")
WELCOME = (DOWN, b"230 Welcome\r\n")

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "at once": [GREETING, AUTH, GO],
    "ssl": [GREETING, (UP, b"auth ssl\r\n"), GO],
    "greeting of many lines": [
        (DOWN, b"220-(vsFTPd 3.0.3)\r\n234 not yet\r\n220-x\r\n220 \r\n"),
        AUTH,
        GO,
    ],
    "a moment, please": [(DOWN, b"120 soon\r\n"), AUTH, GREETING, GO],
    "refused once": [GREETING, AUTH, (DOWN, b"534 No\r\n"), (UP, b"AUTH SSL\r\n"), GO],
    "kerberos refused": [GREETING, (UP, b"AUTH GSSAPI\r\n"), (DOWN, b"504 No\r\n"), AUTH, GO],
    "features first": [
        GREETING,
        (UP, b"FEAT\r\n"),
        (DOWN, b"211-Features:\r\n AUTH TLS\r\n211 End\r\n"),
        AUTH,
        GO,
    ],
    "login refused": [GREETING, USER, (DOWN, b"530 TLS first\r\n"), AUTH, GO],
    "pipelined": [GREETING, (UP, b"SYST\r\n" + AUTH[1]), (DOWN, b"215 UNIX\r\n" + GO[1])],
}


def test_tls_begins_right_behind_234(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = Ftp()
            script = [*UPGRADED[name], (UP, b"\x16\x03\n"), (DOWN, b"\x16\x03\n")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\n", b"\x16\x03\n")
            assert conversation.details_ready
            assert conversation.details().upgraded
            assert conversation.details().greeting in (b"(vsFTPd 3.0.3)", b"soon")


PLAIN: dict[str, list[tuple[Direction, bytes | None]]] = {
    "login": [GREETING, USER, ASKS, PASS, WELCOME],
    "login without password": [GREETING, USER, WELCOME],
    "another security": [GREETING, USER, ASKS, (UP, b"AUTH GSSAPI\r\n"), (DOWN, b"334 Go\r\n")],
    "quit": [GREETING, USER, (UP, b"QUIT\r\n")],
    "server left": [GREETING, USER, (DOWN, None)],
}


def test_behind_a_login_all_passes(converse: Any) -> None:
    for chunk in (None, 1):
        for name in PLAIN:
            conversation = Ftp()
            ended = {direction for direction, data in PLAIN[name] if data is None}
            more = [(way, b"AUTH TLS\r\n\xff") for way in Direction if way not in ended]
            talk = converse(conversation, [*PLAIN[name], *more], chunk=chunk)
            assert (conversation.up, conversation.down) == (COPIED, COPIED)
            assert not talk.kept[UP]
            assert conversation.details_ready
            assert not conversation.details().upgraded
            assert conversation.details().username == b"alice"


def test_no_password_is_kept(converse: Any) -> None:
    conversation = Ftp()
    converse(conversation, [GREETING, USER, ASKS, PASS])
    assert "sesame" not in repr(conversation)


def test_a_refusal_leaves_the_users_name_to_come(converse: Any) -> None:
    conversation = Ftp()
    converse(conversation, [GREETING, AUTH])
    assert conversation.up is PAUSE
    converse(conversation, [(DOWN, b"502 No\r\n")])
    assert conversation.up is PEEK
    assert not conversation.details_ready


def test_inside_its_own_tls_the_client_begins(converse: Any) -> None:
    conversation = Ftp(context=LayerContext(secure=True, stack=("ftp", "tls")))
    script = [(UP, b"PBSZ 0\r\n"), (DOWN, b"200 Ok\r\n"), USER, ASKS, PASS, WELCOME]
    converse(conversation, script)
    assert conversation.up is COPIED
    assert conversation.details().username == b"alice"
    assert conversation.details().greeting is None


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    "script",
    [
        [(DOWN, b"hello\r\n")],
        [(DOWN, b"2200 hello\r\n")],
        [(DOWN, b"920 hello\r\n")],
        [GREETING, (UP, b"NOOP\r\n" * MAX_UNDER_WAY * 2)],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(
    converse: Any, script: Any, chunk: int | None
) -> None:
    with pytest.raises(ProtocolError):
        converse(Ftp(), script, chunk=chunk)


def test_detection_by_greeting_and_command() -> None:
    for up, down, verdict in (
        (b"", b"22", Verdict.NEED_MORE),
        (b"", b"220 hello\r\n", Verdict.NEED_MORE),
        (b"", b"220 FTP", Verdict.NEED_MORE),
        (b"", b"220 FTP\r\n", Verdict.LIKELY),
        (b"", b"220 ESMTP\r\n", Verdict.REJECT),
        (b"", b"221 hello\r\n", Verdict.REJECT),
        (b"USER", b"220 hello\r\n", Verdict.NEED_MORE),
        (b"USER x", b"220 hello\r\n", Verdict.MATCH),
        (b"USER x", b"220 hello", Verdict.NEED_MORE),
        (b"USER x", b"220 ESMTP\r\n", Verdict.REJECT),
        (b"AUTH TLS\r\n", b"220 hello\r\n", Verdict.MATCH),
        (b"AUTH TLS", b"220 hello\r\n", Verdict.NEED_MORE),
        (b"AUTH LOGIN\r\n", b"220 hello\r\n", Verdict.NEED_MORE),
        (b"AUTH TLS\r\n", b"220 ESMTP\r\n", Verdict.REJECT),
        (b"QUIT\r\n", b"220 hello\r\n", Verdict.NEED_MORE),
        (b"QUIT\r\n", b"220 FTP\r\n", Verdict.MATCH),
        (b"QUIT\r\n", b"220-hello\r\n220 ftp.example\r\n", Verdict.MATCH),
        (b"EHLO x\r\n", b"220 FTP\r\n", Verdict.LIKELY),
        (b"USER x\r\n", b"", Verdict.NEED_MORE),
        (b"USER x\r\nPASS y\r\nSYST\r\n", b"", Verdict.LIKELY),
        (b"USER x\r\n", b"+OK", Verdict.REJECT),
        (b"\x16\x03\x01", b"220 FTP\r\n", Verdict.REJECT),
        # As pyftpdlib, Pure-FTPd and FileZilla greet.
        (b"FOO\r\n", b"220 pyftpdlib 1.5.7 ready.\r\n500 Com", Verdict.LIKELY),
        (b"FOO\r\n", b"220---------- Welcome to Pure-FTPd [privsep] [TLS] -\r\n", Verdict.LIKELY),
        (b"", b"220-FileZilla Server 1.6.7\r\n220 Hi\r\n", Verdict.LIKELY),
        (b"USER x\r\n", b"421 8 users (the maximum) are already logged in\r\n", Verdict.MATCH),
        (b"", b"421 Service not available\r\n", Verdict.NEED_MORE),
        (b"", b"530 Sorry, no FTP for you\r\n", Verdict.LIKELY),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_a_220_is_never_both_smtp_and_ftp() -> None:
    for verb in sorted(smtp.OWN | smtp.SHARED | {b"USER", b"FEAT", b"AUTH TLS"}):
        for greeting in (
            b"hello",
            b"ESMTP",
            b"FTP",
            b"FTP and SMTP",
            b"LMTP",
            b"hello\r\n220 FTP SMTP",
        ):
            whole = b"220-" + greeting + b"\r\n220 .\r\n"
            for size in range(len(whole) + 1):
                opening = Opening(up=verb + b"\r\n", down=whole[:size])
                assert [detect(opening), smtp.detect(opening)].count(Verdict.MATCH) < 2


@pytest.mark.parametrize(
    ("up", "verdict"),
    [
        (b"PB", Verdict.NEED_MORE),
        (b"PBSZ 0\r\n", Verdict.MATCH),
        (b"QUIT\r\n", Verdict.MATCH),
        (b"GET / HTTP/1.1\r\n", Verdict.REJECT),
    ],
)
def test_behind_auth_tls_the_client_needs_no_greeting(up: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=up, stack=("ftp", "tls"))) is verdict
