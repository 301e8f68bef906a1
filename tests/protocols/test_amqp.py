"""AMQP: headers, the one after which TLS begins, and a server that names itself."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.amqp import Amqp, detect
from mitml4.protocols.conversation import FORWARD_ALL, PAUSE, SWITCH, Direction, Opening, Verdict

UP, DOWN = Direction.UP, Direction.DOWN

TLS = b"AMQP\x02\x01\x00\x00"
SASL = b"AMQP\x03\x01\x00\x00"
PLAIN = b"AMQP\x00\x01\x00\x00"
RABBIT = b"AMQP\x00\x00\x09\x01"
HELLO = b"\x16\x03\x01\x02\x00"


def sized(body: bytes, size: int = 4) -> bytes:
    return len(body).to_bytes(size, "big") + body


def name(text: bytes) -> bytes:
    return sized(text, 1)


def frame(body: bytes, channel: int = 0) -> bytes:
    return b"\x01" + channel.to_bytes(2, "big") + sized(body) + b"\xce"


PROPERTIES = (
    name(b"capabilities")
    + b"F"
    + sized(name(b"publisher_confirms") + b"t\x01")
    + name(b"channel_max")
    + b"I\x00\x00\x07\xff"
    + name(b"product")
    + b"S"
    + sized(b"RabbitMQ")
    + name(b"version")
    + b"S"
    + sized(b"3.12.1")
)
START = frame(b"\x00\x0a\x00\x0a\x00\x09" + sized(PROPERTIES) + sized(b"PLAIN") + sized(b"en_US"))
PUBLISH = frame(b"\x00\x3c\x00\x28\x00\x00\x08celeryev\x10worker.heartbeat\x00", 1)


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_tls_begins_behind_both_headers(converse: Any, chunk: int | None) -> None:
    conversation = Amqp()
    talk = converse(conversation, [(UP, TLS + HELLO), (DOWN, TLS + b"\x16")], chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert (talk.kept[UP], talk.kept[DOWN]) == (HELLO, b"\x16")
    assert conversation.details_ready
    assert conversation.details().upgraded


def test_the_client_waits_for_the_servers_header(converse: Any) -> None:
    conversation = Amqp()
    talk = converse(conversation, [(UP, TLS + HELLO)])
    assert conversation.up is PAUSE
    assert talk.kept[UP] == HELLO


def test_every_other_answer_passes(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for script, version, server in (
            ([(UP, TLS), (DOWN, SASL)], "1.0, TLS", "1.0, SASL"),
            ([(UP, SASL + PLAIN), (DOWN, SASL)], "1.0, SASL", "1.0, SASL"),
            ([(UP, SASL), (DOWN, TLS)], "1.0, SASL", "1.0, TLS"),
            ([(UP, PLAIN), (DOWN, RABBIT)], "1.0", "0-9-1"),
            ([(UP, RABBIT), (DOWN, PUBLISH)], "0-9-1", None),
            ([(UP, PUBLISH), (DOWN, PUBLISH)], None, None),
            ([(DOWN, PUBLISH), (UP, RABBIT)], None, None),
            ([(UP, TLS), (DOWN, None)], "1.0, TLS", None),
        ):
            conversation = Amqp()
            talk = converse(conversation, [*script, (UP, b"more")], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert not talk.kept[UP]
            assert not talk.kept[DOWN]
            details = conversation.details()
            assert (details.version, details.server_version, details.upgraded) == (
                version,
                server,
                False,
            )


@pytest.mark.parametrize("chunk", [None, 1, 5])
def test_a_server_of_0_9_1_names_itself(converse: Any, chunk: int | None) -> None:
    conversation = Amqp()
    talk = converse(conversation, [(UP, RABBIT), (DOWN, START)], chunk=chunk)
    assert conversation.details_ready
    assert talk.moved[DOWN] == START
    details = conversation.details()
    assert (details.product, details.product_version) == (b"RabbitMQ", b"3.12.1")


@pytest.mark.parametrize(
    "script",
    [
        [(UP, b"AMQP\x00\x00\x09\x02")],
        [(UP, RABBIT), (DOWN, b"HTTP/1.1 400")],
        [(UP, RABBIT), (DOWN, frame(b"\x00\x0a\x00\x0a\x00\x09" + sized(name(b"a") + b"?")))],
        [(UP, RABBIT), (DOWN, frame(b"\x00\x0a\x00\x0a\x00\x09" + sized(name(b"a") + b"S\0\0\1")))],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="amqp"):
        converse(Amqp(), script)


def test_detection_by_a_header_or_a_frame() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (b"AMQP", Verdict.NEED_MORE),
        (RABBIT[:7], Verdict.NEED_MORE),
        (RABBIT, Verdict.MATCH),
        (TLS, Verdict.MATCH),
        (SASL + PLAIN, Verdict.MATCH),
        (b"AMQP\x04", Verdict.REJECT),
        (b"AMQX", Verdict.REJECT),
        (PUBLISH[:-1], Verdict.NEED_MORE),
        (PUBLISH, Verdict.MATCH),
        (PUBLISH[:-1] + b"\x00", Verdict.REJECT),
        (b"\x01\x00\x01\x00\x00\x00\x21\x00\x3d", Verdict.REJECT),
        (b"\x01\x01\x03\x14", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


OPEN_1_0 = bytes.fromhex("0000004002000000005310c0")


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_frames_of_1_0_are_known_in_the_middle(converse: Any, direction: Direction) -> None:
    assert detect(Opening(up=OPEN_1_0[:-1])) is Verdict.NEED_MORE
    assert detect(Opening(up=OPEN_1_0)) is Verdict.MATCH
    assert detect(Opening(down=OPEN_1_0)) is Verdict.LIKELY
    assert detect(Opening(up=OPEN_1_0[:-2] + b"\x19")) is Verdict.REJECT
    assert detect(Opening(up=OPEN_1_0[:3] + b"\x08\x03")) is Verdict.REJECT
    conversation = Amqp()
    converse(conversation, [(direction, OPEN_1_0)])
    assert conversation.details_ready


def test_a_server_that_speaks_first_is_likely() -> None:
    assert detect(Opening(down=RABBIT)) is Verdict.LIKELY
    assert detect(Opening(down=PUBLISH)) is Verdict.LIKELY
    assert detect(Opening(down=PUBLISH, up=b"x")) is Verdict.REJECT
