"""MySQL: the server's greeting, and what the client makes of it."""

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
    Verdict,
)
from mitml4.protocols.mysql import Mysql, MysqlDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN


def packet(sequence: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([sequence]) + body


def greeting(capabilities: bytes = b"\xff\xff", version: bytes = b"8.0.36") -> bytes:
    rest = b"\xff\x02\x00\xff\xdf\x15" + bytes(10) + b"salt-salt-sa\x00caching_sha2_password\x00"
    return packet(0, b"\x0a" + version + b"\x00\x0c\x00\x00\x00saltsalt\x00" + capabilities + rest)


def client(sequence: int, capabilities: bytes, rest: bytes = b"") -> bytes:
    return packet(sequence, capabilities + b"\x00\x00\x00\x01\xff" + bytes(23) + rest)


GREETING = greeting()
NO_TLS = greeting(b"\xff\xf7")
SSL_REQUEST = client(1, b"\x85\xae\xff\x19")
LOGIN = client(1, b"\x85\xa6\xff\x19", b"alice\x00\x20hash-of-a-secret-hash-of-a-secretdb\x00")
LOGIN_IN_TLS = client(2, b"\x85\xae\xff\x19", LOGIN[36:])
MARIADB_LOGIN = LOGIN[:32] + b"\x1d\x00\x00\x00" + LOGIN[36:]
DENIED = packet(0, b"\xff\x6a\x04Host 'a' is not allowed to connect")
HELLO = b"\x16\x03\x01\x02\x00"
IN_TLS = ("socks5", "mysql", "tls")


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_tls_begins_right_behind_the_ssl_request(converse: Any, chunk: int | None) -> None:
    conversation = Mysql()
    script = [(DOWN, GREETING), (UP, SSL_REQUEST + HELLO), (DOWN, b"\x16")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert (talk.kept[UP], talk.kept[DOWN]) == (HELLO, b"\x16")
    assert conversation.details_ready
    details = conversation.details()
    assert (details.server_version, details.tls_offered, details.upgraded) == (
        b"8.0.36",
        True,
        True,
    )


def test_a_plain_login_tells_the_user_and_no_secret(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for login in (LOGIN, MARIADB_LOGIN):
            for hello in (GREETING, NO_TLS):
                conversation = Mysql()
                script = [
                    (DOWN, hello),
                    (UP, login),
                    (DOWN, packet(2, b"\x00\x00\x00\x02\x00\x00\x00")),
                ]
                talk = converse(conversation, script, chunk=chunk)
                assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
                assert not talk.kept[UP]
                assert not talk.kept[DOWN]
                assert conversation.details_ready
                details = conversation.details()
                assert (details.user, details.tls_offered, details.upgraded) == (
                    b"alice",
                    hello is GREETING,
                    False,
                )
                assert "secret" not in repr(details)


@pytest.mark.parametrize("chunk", [None, 1])
def test_inside_its_tls_the_client_goes_on_without_a_greeting(
    converse: Any, chunk: int | None
) -> None:
    conversation = Mysql(context=LayerContext(secure=True, stack=IN_TLS))
    talk = converse(conversation, [(UP, LOGIN_IN_TLS), (DOWN, b"\x02")], chunk=chunk)
    assert conversation.details_ready
    assert not talk.kept[UP]
    assert talk.moved[DOWN] == b"\x02"
    assert conversation.details().user == b"alice"


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_refusal_is_told(converse: Any, chunk: int | None) -> None:
    conversation = Mysql()
    converse(conversation, [(DOWN, DENIED)], chunk=chunk)
    assert conversation.details_ready
    assert conversation.details().error == b"Host 'a' is not allowed to connect"
    assert conversation.details().tls_offered is None


@pytest.mark.parametrize(
    "script",
    [
        [(DOWN, NO_TLS), (UP, SSL_REQUEST)],
        [(DOWN, GREETING), (DOWN, packet(1, b"\xff\x85\x04Timeout"))],
        [(DOWN, GREETING), (UP, None)],
        [(UP, b"early"), (DOWN, None)],
    ],
)
def test_what_cannot_become_tls_passes(converse: Any, script: Any) -> None:
    conversation = Mysql()
    talk = converse(conversation, script)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details_ready
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]


def test_the_client_waits_for_the_greeting(converse: Any) -> None:
    conversation = Mysql()
    converse(conversation, [(UP, LOGIN)])
    assert conversation.up is PAUSE
    converse(conversation, [(DOWN, GREETING), (UP, LOGIN)])
    assert conversation.details().user == b"alice"


@pytest.mark.parametrize(
    "script",
    [
        [(DOWN, b"220 hello\r\n")],
        [(DOWN, packet(0, b"\x0a8.0\x00short"))],
        [(DOWN, GREETING), (UP, b"GET / HTTP/1.1\r\n")],
        [(DOWN, GREETING), (UP, client(1, b"\x85\xa6\xff\x19", b"u" * 400))],
        [(DOWN, GREETING), (UP, client(1, b"\x05\x00\x00\x00", b"old\x00"))],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="mysql"):
        converse(Mysql(), script)


def test_detection_by_greeting_and_answer() -> None:
    for down, up, verdict in (
        (b"", b"", Verdict.NEED_MORE),
        (GREETING[:4], b"", Verdict.NEED_MORE),
        (GREETING[:-1], b"", Verdict.NEED_MORE),
        (GREETING, b"", Verdict.LIKELY),
        (GREETING, LOGIN[:3], Verdict.LIKELY),
        (GREETING, LOGIN, Verdict.MATCH),
        (GREETING, SSL_REQUEST + HELLO, Verdict.MATCH),
        (b"", LOGIN, Verdict.LIKELY),
        (packet(2, b"\0\0\0\2\0\0\0"), LOGIN, Verdict.MATCH),
        (packet(2, b"\xfemysql_native_password\0"), LOGIN, Verdict.MATCH),
        (packet(2, b"\0\0\0\2\0\0\0")[:4], LOGIN, Verdict.NEED_MORE),
        (packet(2, b"\3\0\0\2\0\0\0"), LOGIN, Verdict.REJECT),
        (packet(3, b"\0\0\0\2\0\0\0"), LOGIN, Verdict.REJECT),
        (packet(2, b"\0\0\0\2\0\0\0"), LOGIN[:9], Verdict.NEED_MORE),
        (GREETING, HELLO, Verdict.REJECT),
        (GREETING, b"GET", Verdict.REJECT),
        (GREETING, LOGIN_IN_TLS, Verdict.REJECT),
        (GREETING, b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00", Verdict.REJECT),
        (DENIED, b"", Verdict.LIKELY),
        (packet(0, b"\xff\x15\x04\x01\x02"), b"", Verdict.REJECT),
        (packet(0, b"\xff\x08\x08"), b"", Verdict.REJECT),  # an error of no words
        (packet(0, b"\x0aversion\x00"), b"", Verdict.REJECT),
        (packet(1, b"\x0a8.0"), b"", Verdict.REJECT),
        (b"\x4a\x00\x01", b"", Verdict.REJECT),
        (b"HTTP/1.1 200 OK\r\n", LOGIN, Verdict.REJECT),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


RESULT = bytes.fromhex("010000010127000002036465660000000c")


def test_the_middle_of_a_connection() -> None:
    for up, verdict in (
        (packet(0, b"\x03select 1"), Verdict.MATCH),
        (packet(0, b"\x03COMMIT"), Verdict.MATCH),
        (packet(0, b"\x03Set names utf8"), Verdict.MATCH),
        (packet(0, b"\x03sel"), Verdict.REJECT),
        (packet(0, b"\x03select 1")[:8], Verdict.NEED_MORE),
        (packet(0, b"\x03hello, world"), Verdict.REJECT),
        (packet(0, b"\x04select 1"), Verdict.REJECT),
        (packet(1, b"\x03select 1"), Verdict.REJECT),
        (RESULT[:12], Verdict.NEED_MORE),
        (RESULT, Verdict.MATCH),
        (RESULT[:11] + b"eef", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


def test_results_alone_are_likely(converse: Any) -> None:
    assert detect(Opening(down=RESULT)) is Verdict.LIKELY
    assert detect(Opening(down=RESULT, up=b"GET /")) is Verdict.REJECT
    conversation = Mysql()
    talk = converse(conversation, [(UP, packet(0, b"\x03select 1")), (DOWN, RESULT)])
    assert conversation.details_ready
    assert not talk.kept[UP]
    assert conversation.details() == MysqlDetails()


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_login_that_waits_is_read_before_what_the_server_says_next(
    converse: Any, chunk: int | None
) -> None:
    conversation = Mysql()
    script = [(UP, LOGIN), (DOWN, GREETING + packet(2, b"\0\0\0\2\0\0\0"))]
    converse(conversation, script, chunk=chunk)
    assert conversation.details().user == b"alice"


@pytest.mark.parametrize("down", [GREETING, DENIED])
def test_a_greeting_is_enough_once_the_client_cannot_answer(down: bytes) -> None:
    assert detect(Opening(down=down, up_ended=True)) is Verdict.MATCH


@pytest.mark.parametrize(
    ("up", "verdict"),
    [
        (LOGIN_IN_TLS[:20], Verdict.NEED_MORE),
        (LOGIN_IN_TLS, Verdict.MATCH),
        (LOGIN, Verdict.REJECT),
        (b"GET ", Verdict.REJECT),
    ],
)
def test_inside_its_tls_the_login_is_enough(up: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=up, stack=IN_TLS)) is verdict
