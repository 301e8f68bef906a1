"""IMAP: tags, literals, and the point at which TLS begins."""

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
from mitml4.protocols.imap import Imap, detect
from mitml4.protocols.parts.login import MAX_UNDER_WAY

UP, DOWN = Direction.UP, Direction.DOWN

GREETING = (DOWN, b"* OK [CAPABILITY IMAP4rev1] hi\r\n")
STARTTLS = (UP, b"a9 starttls\r\n")
GO = (DOWN, b"a9 OK go\r\n")
GO_AHEAD = (DOWN, b"+ go ahead\r\n")
SECRET = b"a9 STARTTLS\r\n"
"""As a literal: 13 bytes."""

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "at once": [GREETING, STARTTLS, GO],
    "usual": [
        GREETING,
        (UP, b". CAPABILITY\r\n"),
        (DOWN, b"* CAPABILITY IMAP4rev1 STARTTLS\r\n. OK done\r\n"),
        STARTTLS,
        GO,
    ],
    "refused once": [GREETING, STARTTLS, (DOWN, b"a9 BAD no\r\n"), STARTTLS, GO],
    "other answers first": [
        GREETING,
        (UP, b"a1 NOOP\r\na2 CAPABILITY\r\n" + STARTTLS[1]),
        (DOWN, b"a2 OK x\r\n* OK a9 OK\r\na1 OK x\r\n"),
        GO,
    ],
    "its answer first": [GREETING, (UP, b"a1 NOOP\r\n" + STARTTLS[1]), GO],
    "a line of the server that goes on like an answer": [
        GREETING,
        STARTTLS,
        (DOWN, b"* ID {0}\r\nx OK {7}\r\na9 OK\r\n)\r\n"),
        GO,
    ],
    "one tag for all": [GREETING, (UP, b"a9 NOOP\r\n" + STARTTLS[1]), (DOWN, b"a9 OK\r\n"), GO],
    "login refused": [GREETING, (UP, b"a1 LOGIN a b\r\n"), (DOWN, b"a1 NO TLS\r\n"), STARTTLS, GO],
    "question in a literal": [
        GREETING,
        (UP, b"a1 LOGIN me {13}\r\n"),
        GO_AHEAD,
        (UP, SECRET + b"\r\n"),
        (DOWN, b"a1 NO TLS\r\n"),
        STARTTLS,
        GO,
    ],
    "question in a literal that does not wait": [
        GREETING,
        (UP, b"a1 LOGIN {13+}\r\n" + SECRET + b" {13+}\r\n" + SECRET + b"\r\n"),
        (DOWN, b"a1 NO TLS\r\n"),
        STARTTLS,
        GO,
    ],
    "literal refused": [
        GREETING,
        (UP, b"a1 LOGIN {13}\r\n"),
        (DOWN, b"a1 BAD TLS first\r\n"),
        STARTTLS,
        GO,
    ],
    "yes in a literal of the server": [
        GREETING,
        (UP, b"a1 ID NIL\r\n" + STARTTLS[1]),
        (DOWN, b'* ID ("a" {7}\r\na9 OK\r\n "b" {0}\r\n)\r\na1 OK done {5}\r\n'),
        GO,
    ],
    "response that looks like a question": [
        GREETING,
        (UP, b"a1 AUTHENTICATE LOGIN\r\n"),
        (DOWN, b"+ VXNlcm5hbWU6\r\n"),
        (UP, b"STARTTLS\r\n"),
        (DOWN, b"a1 NO no\r\n"),
        STARTTLS,
        GO,
    ],
    "empty literal": [
        GREETING,
        (UP, b'a1 LOGIN {0+}\r\n ""\r\n'),
        (DOWN, b"a1 NO no\r\n"),
        STARTTLS,
        GO,
    ],
}


def test_tls_begins_right_behind_the_tagged_ok(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = Imap()
            script = [*UPGRADED[name], (UP, b"\x16\x03\n"), (DOWN, b"\x16\x03\n")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\n", b"\x16\x03\n")
            assert conversation.details_ready
            assert conversation.details().upgraded
            assert conversation.details().greeting == b"[CAPABILITY IMAP4rev1] hi"


PLAIN: dict[str, list[tuple[Direction, bytes]]] = {
    "login": [GREETING, (UP, b"a1 LOGIN alice secret\r\n"), (DOWN, b"a1 OK in\r\n")],
    "quoted": [GREETING, (UP, b'a1 login "alice" "secret"\r\n'), (DOWN, b"a1 ok\r\n")],
    "plain": [
        GREETING,
        (UP, b"a1 AUTHENTICATE PLAIN\r\n"),
        (DOWN, b"+ \r\n"),
        (UP, b"AGFsaWNlAHNlY3JldA==\r\n"),
        (DOWN, b"a1 OK in\r\n"),
    ],
    "plain at once": [
        GREETING,
        (UP, b"a1 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==\r\n"),
        (DOWN, b"a1 OK in\r\n"),
    ],
}


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("name", PLAIN)
def test_behind_a_login_all_passes(converse: Any, name: str, chunk: int | None) -> None:
    conversation = Imap()
    talk = converse(conversation, [*PLAIN[name], STARTTLS, GO], chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP]
    assert conversation.details_ready
    assert not conversation.details().upgraded
    assert conversation.details().username == b"alice"
    assert "secret" not in repr(conversation)


def test_a_client_who_is_known_already_asks_no_more(converse: Any) -> None:
    conversation = Imap()
    converse(conversation, [(DOWN, b"* PREAUTH welcome\r\n")])
    assert conversation.up is FORWARD_ALL


def test_a_literal_waits_for_the_servers_go_ahead(converse: Any) -> None:
    conversation = Imap()
    talk = converse(conversation, [GREETING, (UP, b"a1 LOGIN {3}\r\nabc")])
    assert conversation.up is PAUSE
    assert talk.kept[UP] == b"abc"
    talk = converse(conversation, [GO_AHEAD, (UP, b"abc {3+}")])
    assert conversation.up is PEEK
    assert talk.kept[UP] == b" {3+}"


def test_a_go_ahead_is_no_answer_to_starttls(converse: Any) -> None:
    conversation = Imap()
    converse(conversation, [GREETING, STARTTLS, GO_AHEAD])
    assert conversation.up is PAUSE


def test_starttls_with_an_argument_is_no_question(converse: Any) -> None:
    conversation = Imap()
    converse(conversation, [GREETING, (UP, b"a1 STARTTLS now\r\n"), (DOWN, b"a1 OK\r\n")])
    assert conversation.up is PEEK


def test_inside_its_own_tls_the_client_begins(converse: Any) -> None:
    conversation = Imap(context=LayerContext(secure=True, stack=("imap", "tls")))
    converse(conversation, [(UP, b"a1 LOGIN alice x\r\n"), (DOWN, b"a1 OK in\r\n")])
    assert conversation.up is FORWARD_ALL
    assert conversation.details().username == b"alice"
    assert conversation.details().greeting is None


def test_too_many_commands_without_an_answer_break_the_protocol(converse: Any) -> None:
    with pytest.raises(ProtocolError, match="too many"):
        converse(Imap(), [GREETING, (UP, b"a NOOP\r\n" * (MAX_UNDER_WAY + 1))])


def test_detection_by_greeting_and_tagged_command() -> None:
    for up, down, verdict in (
        (b"", b"* ", Verdict.NEED_MORE),
        (b"", b"* OK", Verdict.NEED_MORE),
        (b"", b"* OK hi\r\n", Verdict.LIKELY),
        (b"", b"* bye ", Verdict.LIKELY),
        (b"", b"*1\r\n", Verdict.REJECT),
        (b"", b"* OKAY", Verdict.REJECT),
        (b"a1 ", b"* OK hi\r\n", Verdict.NEED_MORE),
        (b"a1 LOGI", b"* OK hi\r\n", Verdict.NEED_MORE),
        (b"a1 login ", b"* OK hi\r\n", Verdict.MATCH),
        (b"a1 LOGIN ", b"", Verdict.NEED_MORE),
        (b"a1 LOGIN x y\r\n", b"", Verdict.LIKELY),
        (b"AUTH LOGIN x y\r\n", b"", Verdict.NEED_MORE),
        (b"AUTH LOGIN\r\n", b"220 ESMTP\r\n", Verdict.REJECT),
        (b"a1 FOO\r\n", b"* OK hi\r\n", Verdict.NEED_MORE),
        (b"A001 UNKNOWN x\r\n", b"* OK [CAPABILITY IMAP4rev1 SASL-IR] Do", Verdict.LIKELY),
        (b"\x16\x03\x01", b"* OK IMAP4\r\n", Verdict.REJECT),
        (b"get LOGIN\r\n", b"END\r\n", Verdict.REJECT),
        (b"a" * 65 + b" NOOP\r\n", b"* OK hi\r\n", Verdict.NEED_MORE),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_behind_starttls_the_client_needs_no_greeting() -> None:
    assert detect(Opening(up=b"a1 LOGIN ", stack=("imap", "tls"))) is Verdict.MATCH
    assert detect(Opening(up=b"a1 LOG", stack=("imap", "tls"))) is Verdict.NEED_MORE
    assert detect(Opening(up=b"GET /", stack=("imap", "tls"))) is Verdict.REJECT


@pytest.mark.parametrize("chunk", [None, 1])
def test_the_servers_next_line_waits_until_the_client_has_used_a_go_ahead(
    converse: Any, chunk: int | None
) -> None:
    """A refusal right behind it belongs to the literal that comes next, however it is split."""
    conversation = Imap()
    script = [
        (DOWN, b"* OK hi\r\n"),
        (UP, b"a1 LOGIN {2}\r\nme {2}\r\na2 STARTTLS\r\n"),
        (DOWN, b"+ go\r\na1 NO\r\na2 OK go\r\n"),
    ]
    converse(conversation, script, chunk=chunk)
    assert conversation.details().upgraded
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
