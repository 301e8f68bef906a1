"""PostgreSQL: its questions, each answered by one byte, and its start-up."""

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
    Opening,
    Verdict,
)
from mitml4.protocols.postgresql import Postgresql, PostgresqlDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN

SSL = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
GSS = b"\x00\x00\x00\x08\x04\xd2\x16\x30"
CANCEL = b"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x12\x34secr"
STARTUP = (
    b"\x00\x00\x00\x3e\x00\x03\x00\x00"
    b"user\x00alice\x00database\x00shop\x00application_name\x00psql\x00opt\x00x\x00\x00"
)
PASSWORD = b"p\x00\x00\x00\x0bsecret\x00"
WANTS_PASSWORD = b"R\x00\x00\x00\x08\x00\x00\x00\x03"
OK = b"R\x00\x00\x00\x08\x00\x00\x00\x00"
ENCODING = b"S\x00\x00\x00\x19client_encoding\x00UTF8\x00"
VERSION = b"S\x00\x00\x00\x18server_version\x0016.2\x00"
READY = b"Z\x00\x00\x00\x05I"
HELLO = b"\x16\x03\x01\x02\x00"


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize(
    "before", [[], [(UP, GSS), (DOWN, b"N")], [(UP, SSL), (DOWN, b"N")]], ids=["", "gss", "ssl"]
)
def test_tls_begins_behind_the_servers_s(converse: Any, before: Any, chunk: int | None) -> None:
    conversation = Postgresql()
    script = [*before, (UP, SSL), (DOWN, b"S"), (UP, HELLO), (DOWN, b"\x16")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert (talk.kept[UP], talk.kept[DOWN]) == (HELLO, b"\x16")
    assert conversation.details_ready
    details = conversation.details()
    assert (details.upgraded, details.encryption) == (True, "tls")


def test_the_client_waits_for_the_answer(converse: Any) -> None:
    conversation = Postgresql()
    talk = converse(conversation, [(UP, SSL + STARTUP)])
    assert conversation.up is PAUSE
    assert talk.kept[UP] == STARTUP
    assert not conversation.details_ready


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize("refused", [[], [(UP, SSL), (DOWN, b"N")]], ids=["at once", "after a no"])
def test_a_plain_start_up_tells_who_and_what(
    converse: Any, refused: Any, chunk: int | None
) -> None:
    conversation = Postgresql()
    script = [
        *refused,
        (UP, STARTUP),
        (DOWN, WANTS_PASSWORD),
        (UP, PASSWORD),
        (DOWN, OK + ENCODING + VERSION + READY),
        (UP, b"Q\x00\x00\x00\x0dselect 1\x00"),
    ]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details_ready
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]
    details = conversation.details()
    assert (details.user, details.database, details.application_name) == (
        b"alice",
        b"shop",
        b"psql",
    )
    assert details.server_version == b"16.2"
    assert details.encryption == ("refused" if refused else None)
    assert b"secret" not in repr(details).encode()


def test_what_stays_as_it_is_passes(converse: Any) -> None:
    for chunk in (None, 1):
        for script, encryption, cancel in (
            ([(UP, GSS), (DOWN, b"G")], "gssapi", False),
            ([(UP, SSL), (DOWN, b"E")], None, False),
            ([(UP, SSL), (DOWN, b"G")], None, False),
            ([(UP, CANCEL)], None, True),
            ([(UP, STARTUP), (DOWN, b"E\x00\x00\x00\x09SFATA")], None, False),
            ([(UP, STARTUP), (DOWN, OK + READY)], None, False),
            ([(UP, STARTUP), (DOWN, None)], None, False),
            ([(DOWN, b"HTTP/1.1 400")], None, False),
        ):
            conversation = Postgresql()
            talk = converse(conversation, [*script, (UP, b"more")], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert not talk.kept[UP]
            details = conversation.details()
            assert (details.encryption, details.cancel, details.upgraded) == (
                encryption,
                cancel,
                False,
            )


def test_a_long_message_of_the_server_passes_unseen(converse: Any) -> None:
    conversation = Postgresql()
    notice = b"N\x00\x02\x00\x00" + b"x" * 0x1FFFC
    talk = converse(conversation, [(UP, STARTUP), (DOWN, OK + notice + VERSION)], chunk=4096)
    assert conversation.details().server_version == b"16.2"
    assert talk.moved[DOWN] == OK + notice + VERSION


def test_after_a_no_the_client_may_ask_again(converse: Any) -> None:
    conversation = Postgresql()
    converse(conversation, [(UP, GSS), (DOWN, b"N")])
    assert conversation.up is PEEK


@pytest.mark.parametrize(
    "script",
    [
        [(UP, SSL), (DOWN, b"N"), (UP, b"GET / HTTP/1.1\r\n")],
        [(UP, STARTUP), (DOWN, b"R\x00\x00\x00\x03")],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="postgresql"):
        converse(Postgresql(), script)


def test_detection_by_the_first_packet() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (b"\x00\x00\x00", Verdict.NEED_MORE),
        (SSL[:7], Verdict.NEED_MORE),
        (SSL, Verdict.MATCH),
        (SSL + HELLO, Verdict.MATCH),
        (GSS, Verdict.MATCH),
        (CANCEL[:8], Verdict.MATCH),
        (b"\x00\x00\x00\x09" + SSL[4:], Verdict.REJECT),
        (b"\x00\x00\x00\x0f" + CANCEL[4:], Verdict.REJECT),
        (STARTUP[:8], Verdict.NEED_MORE),
        (STARTUP[:18], Verdict.NEED_MORE),
        (STARTUP[:19], Verdict.MATCH),
        (b"\x00\x00\x00\x3f\x00\x03\x00\x02user\x00me\x00", Verdict.MATCH),
        (b"\x00\x00\x00\x3f\x00\x03\x00\x00options\x00\x00user\x00me\x00", Verdict.MATCH),
        (b"\x00\x00\x00\x3f\x00\x03\x00\x00name\x00\x00\x80", Verdict.REJECT),
        (b"\x00\x00\x00\x08\x00\x03\x00\x00", Verdict.REJECT),
        (b"\x00\x00\x00\x28\x00\x03\x00\x02\x00", Verdict.REJECT),  # Kafka: Metadata
        (b"\x00\x00\x00\x07", Verdict.REJECT),
        (b"\x00\x01", Verdict.REJECT),
        (b"\x00\x00\x00\x3f\x00\x02", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


def test_messages_in_the_middle() -> None:
    for messages, verdict in (
        (b"R\0\0\0\x08\0\0\0", Verdict.NEED_MORE),
        (b"R\0\0\0\x08\0\0\0\0", Verdict.MATCH),
        (b"R\0\0\0\x08\0\0\1\0", Verdict.REJECT),
        (b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", Verdict.MATCH),
        (b"R\0\0\0\xea\0\0\0\7\0\0\0\5", Verdict.REJECT),  # an array of numbers
        (b"R\0\0\0\xea\0\0\0\x0a\0\0\0\5", Verdict.REJECT),
        (b"R\0\0\0\x07", Verdict.REJECT),
        (b"E\0\0\0USFATAL\0VFATAL\0C53300\0", Verdict.MATCH),
        (b"E\0\0\0\x14SINFO\0MetGer Error\0\0", Verdict.MATCH),
        (b"E\0\0\0\x14SINFO\0GetGer Error\0\0", Verdict.REJECT),
        (b"S\0\0\0\x17DateStyle\0ISO, MDY\0S\0\0\0\x14is_superuser\0on\0", Verdict.MATCH),
        (b"S\0\0\0\x17DateStyle\0ISO, MDY\0S\0\0\0\x14is_superuser\0on", Verdict.NEED_MORE),
        (b"1\0\0\0\x042\0\0\0\x04T\0\0\0", Verdict.MATCH),
        (b"C\0\0\0\x0aBEGIN\0a", Verdict.REJECT),
        (b"Q\0\0\0\x0aBEGIN\0", Verdict.MATCH),
        (b"Q\0\0\0\x0aBEGIN!", Verdict.REJECT),
        (b"QUIT\r\n", Verdict.REJECT),
        (b"SSH-2.0-x\r\n", Verdict.REJECT),
        (b"\x16\x03\x01", Verdict.REJECT),
    ):
        assert detect(Opening(up=messages)) is verdict
        likely = Verdict.LIKELY if verdict is Verdict.MATCH else verdict
        assert detect(Opening(down=messages)) is likely


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_the_middle_of_a_connection_says_nothing(converse: Any, direction: Direction) -> None:
    conversation = Postgresql()
    converse(conversation, [(direction, b"Z\0\0\0\x05IC\0\0\0\x0aBEGIN\0")])
    assert conversation.details_ready
    assert conversation.details() == PostgresqlDetails()
