"""IRC: registration, STARTTLS, and whose `USER` it is."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import (
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    Opening,
    Verdict,
)
from mitml4.protocols.irc import Irc, detect
from mitml4.protocols.parts.tail import COPIED

UP, DOWN = Direction.UP, Direction.DOWN

NOTICE = (DOWN, b":irc.example NOTICE * :*** Looking up your hostname\r\n")
NICK = (UP, b"NICK alice\r\nUSER al 0 * :Alice\r\n")
STARTTLS = (UP, b"starttls\r\n")
GO = (DOWN, b":irc.example 670 * :STARTTLS successful\r\n")
WELCOME = (DOWN, b":irc.example 001 alice :Welcome\r\n")

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "at once": [STARTTLS, GO],
    "after capabilities": [
        NOTICE,
        (UP, b"CAP LS 302\r\n"),
        (DOWN, b":irc.example CAP * LS :tls sasl\r\n"),
        STARTTLS,
        GO,
    ],
    "late notices": [NICK, STARTTLS, NOTICE, (DOWN, b"PING :670\r\n"), GO],
    "failed once": [STARTTLS, (DOWN, b":irc.example 691 * :no\r\n"), STARTTLS, GO],
    "too early": [STARTTLS, (DOWN, b":irc.example 451 * :register\r\n"), STARTTLS, GO],
}


def test_tls_begins_right_behind_670(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = Irc()
            script = [*UPGRADED[name], (UP, b"\x16\x03\n"), (DOWN, b"\x16\x03\n")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\n", b"\x16\x03\n")
            assert conversation.details_ready
            assert conversation.details().upgraded


@pytest.mark.parametrize("chunk", [None, 1])
def test_behind_the_welcome_all_passes(converse: Any, chunk: int | None) -> None:
    conversation = Irc()
    script = [(UP, b"PASS secret\r\n"), NICK, NOTICE, WELCOME, STARTTLS, GO]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (COPIED, COPIED)
    assert not talk.kept[UP]
    assert conversation.details_ready
    details = conversation.details()
    assert (details.nick, details.username, details.server) == (b"alice", b"al", b"irc.example")
    assert details.greeting == b"*** Looking up your hostname"
    assert not details.upgraded
    assert "secret" not in repr(conversation)


def test_a_server_that_knows_no_starttls_lets_the_client_go_on(converse: Any) -> None:
    conversation = Irc()
    converse(conversation, [STARTTLS])
    assert conversation.up is PAUSE
    converse(conversation, [(DOWN, b":irc.example 421 * STARTTLS :Unknown command\r\n")])
    assert conversation.up is PEEK


def test_a_670_that_nobody_asked_for_is_no_answer(converse: Any) -> None:
    conversation = Irc()
    converse(conversation, [NICK, GO])
    assert conversation.up is PEEK


def test_detection_by_command_and_answer() -> None:
    for up, down, verdict in (
        (b"NI", b"", Verdict.NEED_MORE),
        (b"NICK x\r\n", b"", Verdict.NEED_MORE),
        (b"NICK x\r\nUSER x 0 * :x\r\n", b"", Verdict.LIKELY),
        (b"PASS x\r\nNICK x\r\nUSER x 0 * :x\r\n", b"", Verdict.LIKELY),
        (b"USER x\r\nPASS y\r\n", b"", Verdict.NEED_MORE),
        (b"USER x\r\n", b"220 FTP\r\n", Verdict.REJECT),
        (b"USER x\r\n", b"331 password\r\n", Verdict.REJECT),
        (b"USER x\r\n", b"+OK\r\n", Verdict.REJECT),
        (b"USER x 0 * :x\r\n", b":irc.example NOTI", Verdict.NEED_MORE),
        (b"USER x 0 * :x\r\n", b":irc.example NOTICE * :hi\r\n", Verdict.MATCH),
        (b"CAP LS\r\n", b":a CAP * LS :tls\r\n", Verdict.MATCH),
        (b"PASS x\r\n", b":1\r\n", Verdict.REJECT),
        (b"QUIT\r\n", b"+OK\r\n", Verdict.REJECT),
        (b"AUTH TLS\r\n", b"", Verdict.NEED_MORE),
        (b"AUTH TLS\r\n", b"220 hi\r\n", Verdict.REJECT),
        (b"AUTH \x00", b"", Verdict.REJECT),
        (b"", b":a 001 b :Welcome\r\n", Verdict.LIKELY),
        (b"", b":a NOTICE * :hi\r\n", Verdict.LIKELY),
        (b"", b"NOTICE AUTH :*** Looking up your hostname\r\n", Verdict.LIKELY),
        (b"", b"NOTICE me :hi\r\n", Verdict.NEED_MORE),
        (b"", b"ERROR :Closing Link: [127.0.0.1]\r\n", Verdict.LIKELY),
        # As ngIRCd answers.
        (b"JOIN #x\r\n", b":irc.example.net 451 * :Connection not registered\r\n", Verdict.MATCH),
        (b"QUIT\r\n", b"ERROR :Closing connection\r\n", Verdict.MATCH),
        (b"LIST\r\n", b"ERROR what?\r\n", Verdict.REJECT),
        (b"User brown status\r\n", b"Pass the quick fox\r\n", Verdict.REJECT),
        (b"User brown status\r\n", b"PING :the quick", Verdict.MATCH),
        (b"User brown status\r\n", b"PING the quick fox\r\n", Verdict.REJECT),
        (b"NICK x\r\n", b"PING 12345\r\n", Verdict.MATCH),
        (b"PASS x 0210\r\n", b"PASS x 0210-IRC+ ngIRCd|2:CZ\r\n", Verdict.MATCH),
        (b":al!al@h\x19st PRIVMSG #a :hi\r\n", b"", Verdict.REJECT),
        (b":al!al@host PRIVMS", b"", Verdict.NEED_MORE),
        (b":al!al@host PRIVMSG #a :\xc3\xa4\r\n", b"", Verdict.MATCH),
        (b"FOO\r\n", b":irc.example.net 451 * :Connection not registered\r\n", Verdict.LIKELY),
        (b"PRIVMSG bob :\x01DCC SEND hello.txt 1 5555 12\x01\r\n", b"", Verdict.LIKELY),
        (b":al!~al@host PRIVMSG #x :hello\r\n", b"", Verdict.MATCH),
        (b":al!~al@host SAYS hello\r\n", b"", Verdict.NEED_MORE),
        (b":irc.example 353 me = #x :me al\r\n", b"", Verdict.NEED_MORE),
        (b":irc.example 353 me = #x :me al\r\n:irc", b"", Verdict.MATCH),
        (b":\x00", b"", Verdict.REJECT),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_a_command_alone_is_likely_at_the_usual_port() -> None:
    assert detect(Opening(up=b"NICK x\r\n", port=6667)) is Verdict.LIKELY
    assert detect(Opening(up=b"NICK x\r\n", down=b"220 hi", port=6667)) is Verdict.REJECT


def test_behind_starttls_the_client_needs_no_answer() -> None:
    assert detect(Opening(up=b"USER x", stack=("irc", "tls"))) is Verdict.MATCH
