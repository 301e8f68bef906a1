"""MongoDB: the first message, and what a driver says of itself in it."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.mongodb import Mongodb, MongodbDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN


def little(number: int) -> bytes:
    return number.to_bytes(4, "little")


def message(opcode: int, body: bytes, response_to: bytes = bytes(4)) -> bytes:
    return little(16 + len(body)) + b"\x2a\0\0\0" + response_to + little(opcode) + body


def document(*elements: bytes) -> bytes:
    body = b"".join(elements) + b"\0"
    return little(4 + len(body)) + body


def text(name: bytes, value: bytes) -> bytes:
    return b"\x02" + name + b"\0" + little(len(value) + 1) + value + b"\0"


def inner(name: bytes, *elements: bytes) -> bytes:
    return b"\x03" + name + b"\0" + document(*elements)


CLIENT = inner(
    b"client",
    inner(b"application", text(b"name", b"shop")),
    inner(b"driver", text(b"name", b"PyMongo"), text(b"version", b"4.6")),
    inner(b"os", text(b"type", b"Linux")),
)
OTHERS = b"".join(
    (
        b"\x01double\0" + bytes(8),
        b"\x04array\0" + document(b"\x100\0" + little(1)),
        b"\x05binary\0" + little(3) + b"\0abc",
        b"\x0anull\0",
        b"\x0bregex\0^a\0i\0",
        b"\x08bool\0\x01",
    )
)
HELLO = document(b"\x10hello\0" + little(1), OTHERS, CLIENT, text(b"$db", b"admin"))
IS_MASTER = document(b"\x10isMaster\0" + little(1), CLIENT)
MSG_HELLO = message(2013, bytes(4) + b"\0" + HELLO)
QUERY_IS_MASTER = message(2004, bytes(4) + b"admin.$cmd\0" + bytes(4) + b"\xff" * 4 + IS_MASTER)
FIND = message(2004, bytes(4) + b"shop.goods\0" + bytes(8) + document(text(b"a", b"secret")))
LOGIN = message(
    2013,
    bytes(4) + b"\0" + document(b"\x10saslStart\0" + little(1), text(b"payload", b"secret")),
)
COMPRESSED = message(2012, little(2013) + little(100) + b"\x02zstd")
INSERT = message(2002, bytes(4) + b"shop.goods\0" + document(text(b"a", b"b")))


def test_the_first_message_tells_what_it_is_and_no_secret(converse: Any) -> None:
    for chunk in (None, 1, 7):
        for first, command, database, driver, application in (
            (MSG_HELLO, b"hello", b"admin", b"PyMongo 4.6", b"shop"),
            (QUERY_IS_MASTER, b"isMaster", b"admin", b"PyMongo 4.6", b"shop"),
            (FIND, b"query", b"shop", None, None),
            (LOGIN, b"saslStart", None, None, None),
            (COMPRESSED, None, None, None, None),
            (INSERT, None, None, None, None),
        ):
            conversation = Mongodb()
            talk = converse(conversation, [(UP, first + b"more"), (DOWN, b"any")], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert talk.moved == {UP: first + b"more", DOWN: b"any"}
            details = conversation.details()
            assert (details.command, details.database) == (command, database)
            assert (details.driver, details.application) == (driver, application)
            assert "secret" not in repr(details)


def test_a_large_document_is_not_waited_for(converse: Any) -> None:
    conversation = Mongodb()
    large = message(
        2013, bytes(4) + b"\0" + document(b"\x10insert\0" + bytes(4), b"\x0aa\0" * 9000)
    )
    converse(conversation, [(UP, large[:100])])
    assert conversation.details_ready


@pytest.mark.parametrize(
    "first",
    [
        document(b"\x10hello\0" + little(1), b"\x22odd\0"),
        document(b"\x10hello\0" + little(1), b"\x02long\0" + little(9999) + b"a\0"),
        document(b"\x10hello\0" + little(1), b"\x03small\0" + little(1)),
        little(15) + b"\x10hello\0" + little(1),
    ],
)
def test_a_broken_document_raises_protocol_error(converse: Any, first: bytes) -> None:
    with pytest.raises(ProtocolError, match="mongodb"):
        converse(Mongodb(), [(UP, message(2013, bytes(4) + b"\0" + first))])


REPLY = message(1, b"\x08\0\0\0" + bytes(12) + little(1) + HELLO, b"\x01\0\0\0")


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_reply_alone_says_nothing(converse: Any, direction: Direction) -> None:
    assert detect(Opening(down=REPLY)) is Verdict.LIKELY
    assert detect(Opening(down=MSG_HELLO)) is Verdict.REJECT
    conversation = Mongodb()
    converse(conversation, [(direction, REPLY), (direction.other, REPLY)])
    assert conversation.details_ready
    assert conversation.details() == MongodbDetails()


def test_detection_by_the_first_message() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (MSG_HELLO[:26], Verdict.NEED_MORE),
        (MSG_HELLO[:27], Verdict.MATCH),
        (MSG_HELLO[:26] + b"\0", Verdict.REJECT),
        (QUERY_IS_MASTER, Verdict.MATCH),
        (COMPRESSED, Verdict.MATCH),
        (INSERT, Verdict.MATCH),
        (message(2013, bytes(4) + b"\0" + HELLO, b"\xff" * 4), Verdict.MATCH),
        (message(2013, bytes(4) + b"\0" + HELLO, b"\x01\0\0\0"), Verdict.MATCH),
        (REPLY, Verdict.MATCH),
        (REPLY[:16] + b"\x10" + REPLY[17:], Verdict.REJECT),
        (message(1, REPLY[16:]), Verdict.REJECT),
        (message(2014, bytes(4) + b"\0" + HELLO), Verdict.REJECT),
        (message(2013, b"\x04\0\0\0" + b"\0" + HELLO), Verdict.REJECT),
        (message(2013, bytes(4) + b"\0" + little(500)), Verdict.REJECT),
        (message(2004, bytes(4) + b"nodot\0"), Verdict.REJECT),
        (b"\x0f\0\0\0", Verdict.REJECT),
        (b"GET / HTTP/1.1\r\n", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict
