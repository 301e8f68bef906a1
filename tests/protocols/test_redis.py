"""Redis: arrays, lines with their answers, and no secret in the facts."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.redis import Redis, detect

UP, DOWN = Direction.UP, Direction.DOWN

AUTH = b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"
HELLO = b"*5\r\n$5\r\nhello\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$6\r\nsecret\r\n"


def test_the_first_commands_name_and_nothing_else(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for first, command, resp in (
            (AUTH, b"AUTH", None),
            (HELLO, b"HELLO", 3),
            (b"*1\r\n$5\r\nHELLO\r\n", b"HELLO", None),
            (b"*2\r\n$5\r\nHELLO\r\n$1\r\n9\r\n", b"HELLO", None),
            (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$6\r\nsecret\r\n", b"SET", None),
            (b"PING\r\n", b"PING", None),
            (b"set k secret\n", b"SET", None),
        ):
            conversation = Redis()
            talk = converse(
                conversation, [(UP, first), (DOWN, b"+OK\r\n"), (UP, AUTH)], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert talk.moved == {UP: first + AUTH, DOWN: b"+OK\r\n"}
            assert (conversation.details().command, conversation.details().resp) == (command, resp)
            assert "secret" not in repr(conversation)


@pytest.mark.parametrize(
    "first",
    [b"*1\r\n+PING\r\n", b"*1\r\n$4\r\nPINGPONG", b"*x", b"A" * 70, b"*2\r\n$5\r\nHELLO\r\n$9x"],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, first: bytes) -> None:
    with pytest.raises(ProtocolError, match="redis"):
        converse(Redis(), [(UP, first)])


def test_detection_by_the_clients_bytes() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (b"*", Verdict.NEED_MORE),
        (b"*2\r\n$4\r\n", Verdict.NEED_MORE),
        (b"*2\r\n$4\r\nA", Verdict.MATCH),
        (b"*1000\r\n$10\r\nu", Verdict.MATCH),
        (b"*2\r\n+", Verdict.REJECT),
        (b"*0\r\n$4\r\nPING", Verdict.REJECT),
        (b"*1\r\n$0\r\n", Verdict.REJECT),
        (b"*1\r\n$4\r\n\x00", Verdict.REJECT),
        (b"* OK IMAP4", Verdict.REJECT),
        (b"*-1\r\n", Verdict.REJECT),
        (b"*10000000000000000000\r\n", Verdict.REJECT),
        (b"PI", Verdict.NEED_MORE),
        (b"PING", Verdict.NEED_MORE),
        (b"PING\r\n", Verdict.NEED_MORE),
        (b"get k\n", Verdict.NEED_MORE),
        (b"PINGS\r\n", Verdict.NEED_MORE),
        (b"GET\r\n", Verdict.NEED_MORE),
        (b"GET / HTTP/1.1\r\n", Verdict.NEED_MORE),
        (b"PING\x00", Verdict.REJECT),
        (b"SET k " + b"v" * 5000, Verdict.NEED_MORE),
    ):
        assert detect(Opening(up=up)) is verdict


def test_a_line_is_told_by_its_answer() -> None:
    for up, down, verdict in (
        (b"PING\r\n", b"+PONG", Verdict.NEED_MORE),
        (b"TYPE a\r\n", b"+string\r\n", Verdict.MATCH),
        (b"$0\r\n\r\n", b"-ERR unknown command '$0'\r\n", Verdict.LIKELY),
        (b"FOO bar\r\n", b"-ERR unknown command 'FOO', with args", Verdict.LIKELY),
        (b"AUTH x\r\n", b"-WRONGPASS invalid username-password pair", Verdict.LIKELY),
        (b"AUTH x\r\n", b"+OK\r\n", Verdict.REJECT),
        (b"QUIT\r\n", b"+OK\r\n", Verdict.REJECT),
        (b"rpop foo\r\n", b"+OK\r\n", Verdict.REJECT),  # POP3's greeting, and a command of before
        (b"set a b\r\n", b"+OK ready\r\n", Verdict.REJECT),
        (b"set a b\r\n", b"+OK\r\n", Verdict.MATCH),
        (b"XYZZY\r\n", b"-ERR Unknown command.\r\n", Verdict.REJECT),
        (b"INFO sip:a@b SIP/2.0\r\n", b"SIP/2.0 200 OK\r\n", Verdict.REJECT),
        (b"GET\r\n", b"$-1\r\n", Verdict.REJECT),
        (b"PING\r\n", b"+PONG\r\n", Verdict.MATCH),
        (b"PING\r\n", b"-NOAUTH Authentication required.\r\n", Verdict.MATCH),
        (b"INCR k\r\n", b":2\r\n", Verdict.MATCH),
        (b"get k\r\n", b"$-1\r\n", Verdict.MATCH),
        (b"get k\r\n", b"_\r\n", Verdict.MATCH),
        (b"KEYS *\r\n", b"*0\r\n", Verdict.MATCH),
        (b"get k\r\n", b"END\r\n", Verdict.REJECT),  # memcached
        (b"get k\r\n", b"VALUE k 0 1\r\n", Verdict.REJECT),
        (b"PING x\r\n", b":irc.example PONG", Verdict.REJECT),
        (b"PING\r\n", b"PONG\r\n", Verdict.REJECT),  # NATS
        (b"INFO\r\n", b"500 what?\r\n", Verdict.REJECT),
        (b"PIN", b"+PONG\r\n", Verdict.NEED_MORE),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_an_array_behind_a_greeting_is_not_redis() -> None:
    assert detect(Opening(up=b"*1\r\n$4\r\nPING\r\n", down=b"+OK hi\r\n")) is Verdict.REJECT
    assert detect(Opening(up=b"*1\r\n$4\r\nPING\r\n", down=b"+OK\r\n")) is Verdict.MATCH


def test_a_line_without_an_answer_is_likely_at_the_usual_port() -> None:
    assert detect(Opening(up=b"PING\r\n", port=6379)) is Verdict.LIKELY
    assert detect(Opening(up=b"PING\r\n", down=b"+", port=6379)) is Verdict.NEED_MORE


def test_a_server_speaks_first_only_to_refuse() -> None:
    assert detect(Opening(down=b"+OK\r\n")) is Verdict.REJECT
    assert detect(Opening(down=b"-ERR no\r\n")) is Verdict.REJECT
    assert detect(Opening(down=b"-DENIED Redis is running in protected mode")) is Verdict.LIKELY
    assert detect(Opening(down=b"-ERR max number of clients reached\r\n")) is Verdict.LIKELY


def test_answers_alone_are_likely_at_the_usual_port() -> None:
    for answer in (b"+OK\r\n", b"-ERR no\r\n", b":1\r\n", b"$-1\r\n", b"*0\r\n"):
        assert detect(Opening(down=answer, port=6379)) is Verdict.LIKELY
    assert detect(Opening(down=b"220 hi\r\n", port=6379)) is Verdict.REJECT
