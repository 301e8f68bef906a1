"""SMTP: the question of STARTTLS, decided once, whatever else is said."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Verdict,
)
from mitml4.protocols.parts.login import MAX_UNDER_WAY
from mitml4.protocols.smtp import Smtp, detect

UP, DOWN = Direction.UP, Direction.DOWN

GREETING = (DOWN, b"220 mx.example ESMTP Postfix\r\n")
EHLO = (UP, b"EHLO me\r\n")
OFFER = (DOWN, b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n")
STARTTLS = (UP, b"starttls\r\n")
READY = (DOWN, b"220 2.0.0 Ready to start TLS\r\n")
UPGRADE = [STARTTLS, READY]
MAIL = (UP, b"MAIL FROM:<a@example>\r\n")
OK = (DOWN, b"250 2.1.0 Ok\r\n")
RCPT = (UP, b"RCPT TO:<b>\r\n")
DATA = (UP, b"DATA\r\n")
AUTH = (UP, b"AUTH PLAIN AGEAYg==\r\n")
CHALLENGED = [
    (UP, b"AUTH LOGIN\r\n"),
    (DOWN, b"334 VXNlcm5hbWU6\r\n"),
    (UP, b"YQ==\r\n"),
    (DOWN, b"334 UGFzc3dvcmQ6\r\n"),
    (UP, b"Yg==\r\n"),
]
NEEDS_TLS = (DOWN, b"538 Encryption required\r\n")
TLS_FIRST = (DOWN, b"530 5.7.0 Must issue a STARTTLS command first\r\n")

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "usual": [GREETING, EHLO, OFFER, *UPGRADE],
    "many greeting lines": [
        (DOWN, b"220-mx.example ESMTP Postfix\r\n220 \r\n"),
        EHLO,
        OFFER,
        *UPGRADE,
    ],
    "lmtp": [GREETING, (UP, b"LHLO me\r\n"), OFFER, *UPGRADE],
    "bare line feeds": [GREETING, (UP, b"EHLO me\n"), OFFER, (UP, b"STARTTLS\n"), READY],
    "client too early": [EHLO, GREETING, OFFER, *UPGRADE],
    "pipelined": [GREETING, (UP, EHLO[1] + b"NOOP\r\n" + STARTTLS[1]), OFFER, OK, READY],
    "refused once": [GREETING, STARTTLS, (DOWN, b"503 Hello first\r\n"), EHLO, OFFER, *UPGRADE],
    "mail refused without TLS": [GREETING, EHLO, OFFER, MAIL, TLS_FIRST, *UPGRADE],
    "AUTH refused without TLS": [GREETING, EHLO, OFFER, AUTH, NEEDS_TLS, *UPGRADE],
}


def test_tls_begins_right_behind_the_servers_yes(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = Smtp()
            script = [*UPGRADED[name], (UP, b"\x16\x03\x01"), (DOWN, b"\x16\x03\x03")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\x01", b"\x16\x03\x03")
            assert conversation.details_ready
            details = conversation.details()
            assert details.upgraded
            assert details.greeting == b"mx.example ESMTP Postfix"


PLAIN: dict[str, list[tuple[Direction, bytes | None]]] = {
    "mail": [GREETING, EHLO, OFFER, MAIL, OK],
    "mail, pipelined to its text": [GREETING, EHLO, OFFER, MAIL, RCPT, DATA],
    "text in chunks": [GREETING, EHLO, OFFER, MAIL, (UP, b"BDAT 10 LAST\r\n")],
    "AUTH with challenges": [GREETING, EHLO, OFFER, *CHALLENGED, (DOWN, b"235 Ok\r\n")],
    "AUTH at once": [GREETING, EHLO, OFFER, AUTH, (DOWN, b"235 Ok\r\n")],
    "quit": [GREETING, (UP, b"QUIT\r\n")],
    "server left": [GREETING, (DOWN, None)],
    "client left": [GREETING, EHLO, (UP, None)],
}


def test_once_it_stays_plain_a_text_is_no_command(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in PLAIN:
            conversation = Smtp()
            size = 17_000 if chunk is None else 100  # longer than any line, where that is quick
            text, answer = b"STARTTLS\r\n" * 3 + b"\xff" * size, b"220 yes\r\n" + b"\0" * size
            ended = {direction for direction, data in PLAIN[name] if data is None}
            more = [(way, data) for way, data in ((UP, text), (DOWN, answer)) if way not in ended]
            talk = converse(conversation, [*PLAIN[name], *more], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert not talk.kept[DOWN]
            assert conversation.details_ready
            assert not conversation.details().upgraded
            assert conversation.details().greeting == b"mx.example ESMTP Postfix"


def test_the_clients_bytes_wait_between_its_question_and_the_answer(converse: Any) -> None:
    conversation = Smtp()
    script = [GREETING, EHLO, OFFER, (UP, STARTTLS[1] + b"RSET\r\n")]
    talk = converse(conversation, script)
    assert conversation.up is PAUSE
    assert talk.kept[UP] == b"RSET\r\n"
    assert not conversation.details_ready


def test_after_a_no_the_client_goes_on(converse: Any) -> None:
    conversation = Smtp()
    script = [GREETING, EHLO, OFFER, (UP, STARTTLS[1] + b"RSET\r\n"), (DOWN, b"454 No\r\n")]
    talk = converse(conversation, script)
    assert conversation.up is PEEK
    assert not talk.kept[UP]
    assert not conversation.details_ready  # a login may follow


def test_commands_injected_before_the_yes_are_left_to_the_inner_layer(converse: Any) -> None:
    script = [GREETING, EHLO, OFFER, (UP, STARTTLS[1] + b"RSET\r\n"), READY]
    talk = converse(Smtp(), script)
    assert talk.kept[UP] == b"RSET\r\n"


def test_the_server_may_leave_unasked(converse: Any) -> None:
    conversation = Smtp()
    talk = converse(conversation, [GREETING, (DOWN, b"421 timeout\r\n"), (DOWN, None)])
    assert talk.moved[DOWN] == GREETING[1] + b"421 timeout\r\n"
    assert conversation.details_ready


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("stack", "opening"),
    [
        ((), [GREETING, EHLO, OFFER]),
        (("tls",), [GREETING, EHLO, OFFER]),
        (("smtp", "tls"), [EHLO, OFFER]),
    ],
)
def test_a_login_tells_the_users_name_and_never_the_password(
    converse: Any, stack: tuple[str, ...], opening: list[Any], chunk: int | None
) -> None:
    for login in (
        [AUTH],
        CHALLENGED,
        [*CHALLENGED[:2], (UP, b"*\r\n"), (DOWN, b"501 No\r\n"), AUTH],
    ):
        conversation = Smtp(context=LayerContext(secure=bool(stack), stack=stack))
        converse(conversation, [*opening, *login], chunk=chunk)
        assert not conversation.details_ready
        converse(conversation, [(DOWN, b"235 Ok\r\n")])
        assert conversation.details_ready
        assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
        details = conversation.details()
        assert (details.username, details.upgraded) == (b"a", False)


def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any) -> None:
    for chunk in (None, 1):
        for script in (
            [(DOWN, b"hello\r\n")],
            [(DOWN, b"22\r\n")],
            [(DOWN, b"2200 x\r\n")],
            [GREETING, (UP, b"x" * 16400 + b"\r\n")],
            [GREETING, (UP, b"NOOP\r\n" * MAX_UNDER_WAY * 2)],
        ):
            with pytest.raises(ProtocolError):
                converse(Smtp(), script, chunk=chunk)


def test_detection_by_greeting_and_command() -> None:
    for up, down, verdict in (
        (b"", b"22", Verdict.NEED_MORE),
        (b"", b"220 ready\r\n", Verdict.NEED_MORE),
        (b"", b"220 mx ESMTP", Verdict.NEED_MORE),
        (b"", b"220 mx ESMTP\r\n", Verdict.LIKELY),
        (b"", b"220 SMTP or FTP\r\n", Verdict.NEED_MORE),
        (b"", b"220 mail3.example.org hi\r\n", Verdict.LIKELY),
        (b"", b"220 mail me\r\n", Verdict.NEED_MORE),
        (b"", b"220 mail.example.org FTP\r\n", Verdict.NEED_MORE),
        (b"", b"554 mx.example ESMTP not accepting messages\r\n", Verdict.LIKELY),
        (b"QUIT\r\n", b"554-mx.example SMTP\r\n554 no\r\n", Verdict.MATCH),
        (b"EHLO x\r\n", b"421 4.7.0 Too many errors\r\n", Verdict.MATCH),
        (b"", b"550 no\r\n", Verdict.NEED_MORE),
        (b"", b"554 5.7.1 <localhost[127.0.0.1]>: Client host rejected\r\n", Verdict.LIKELY),
        (b"", b"421 5.7.1 no\r\n", Verdict.NEED_MORE),
        (b"", b"221 x", Verdict.REJECT),
        (b"", b"220\r\n", Verdict.REJECT),
        (b"EHLO", b"220 ready\r\n", Verdict.NEED_MORE),
        (b"EHLO ", b"220 ready\r\n", Verdict.MATCH),
        (b"EHLO ", b"220 ", Verdict.MATCH),
        (b"lhlo x", b"220-", Verdict.MATCH),
        (b"EHLO x\r\n", b"", Verdict.LIKELY),
        (b"EHLO x\r\n", b"HTTP", Verdict.REJECT),
        (b"QUIT\r\n", b"220 mx", Verdict.NEED_MORE),
        (b"QUIT\r\n", b"220 mx SMTP\r\n", Verdict.MATCH),
        (b"QUIT\r\n", b"220 ready\r\n", Verdict.NEED_MORE),
        (b"VRFY root\r\n", b"220 ready\r\n", Verdict.MATCH),
        (b"AUTH TLS\r\n", b"220 FTP\r\n", Verdict.NEED_MORE),
        (b"USER x\r\n", b"220 ready\r\n", Verdict.NEED_MORE),
        (b"\r\n", b"220 vm ESMTP Exim 4.96 Tue, 24 Nov 2026\r\n", Verdict.LIKELY),
        (b"FOO\r\n", b"220 vm ESMTP Exim 4.96 Tue, 24 Nov 2026\r\n500 un", Verdict.LIKELY),
        (b"\x16\x03\x01", b"220 mx SMTP\r\n", Verdict.REJECT),
        (b"NOOP\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", b"", Verdict.LIKELY),
        (b"NOOP\r\n", b"", Verdict.NEED_MORE),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_a_greeting_without_a_name_is_likely_at_its_ports_alone() -> None:
    dovecot = b"220 vm Dovecot (Debian) ready.\r\n"
    verdicts = [detect(Opening(down=dovecot, port=port)) for port in (24, 25, 587, 21, 2525)]
    assert verdicts == [Verdict.LIKELY] * 3 + [Verdict.NEED_MORE] * 2


@pytest.mark.parametrize(
    ("up", "verdict"),
    [
        (b"EH", Verdict.NEED_MORE),
        (b"EHLO x\r\n", Verdict.MATCH),
        (b"MAIL FROM:<a>\r\n", Verdict.MATCH),
        (b"USER x\r\n", Verdict.REJECT),
    ],
)
def test_behind_starttls_the_client_needs_no_greeting(up: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=up, stack=("socks5", "smtp", "tls"))) is verdict
