"""MQTT: the CONNECT of each version, and its answer."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PASS_ALL, Direction, Opening, Verdict
from mitml4.protocols.mqtt import Mqtt, detect

UP, DOWN = Direction.UP, Direction.DOWN


def connect(head: bytes, rest: bytes) -> bytes:
    size = len(head) + len(rest)
    length = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    return b"\x10" + length + head + rest


V3 = connect(b"\x00\x06MQIsdp\x03\xc2\x00\x3c", b"\x00\x03dev\x00\x05alice\x00\x06secret")
V4 = connect(b"\x00\x04MQTT\x04\x02\x00\x3c", b"\x00\x05Bus41")
V5 = connect(b"\x00\x04MQTT\x05\xc2\x00\x3c", b"\x03!\x00\x14\x00\x00\x00\x05token\x00\x06secret")
LONG = connect(b"\x00\x04MQTT\x04\x02\x00\x3c", b"\x00\xc8" + b"d" * 200)
BRIDGE = connect(b"\x00\x04MQTT\x84\x02\x00\x3c", b"\x00\x02br")
WELCOME = b"\x20\x02\x00\x00"


@pytest.mark.parametrize("chunk", [None, 1, 5])
@pytest.mark.parametrize(
    ("first", "version", "client_id", "username"),
    [
        (V3, "3.1", b"dev", True),
        (V4, "3.1.1", b"Bus41", False),
        (V5, "5.0", b"", True),
        (LONG, "3.1.1", b"d" * 200, False),
        (BRIDGE, "3.1.1", b"br", False),
    ],
)
@pytest.mark.parametrize(
    ("answer", "code"), [(WELCOME, 0), (b"\x20\x02\x00\x05", 5), (b"\x20\x03\x00\x86\x00", 0x86)]
)
def test_a_connect_and_its_answer(
    converse: Any,
    first: bytes,
    version: str,
    client_id: bytes,
    username: bool,
    answer: bytes,
    code: int,
    chunk: int | None,
) -> None:
    conversation = Mqtt()
    script = [(UP, first + b"\x82\x0d"), (DOWN, answer + b"\x90\x03")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (PASS_ALL, PASS_ALL)
    assert conversation.settled
    assert talk.moved == {UP: first + b"\x82\x0d", DOWN: answer + b"\x90\x03"}
    facts = conversation.facts()
    assert (facts.version, facts.client_id) == (version, client_id)
    assert (facts.has_username, facts.return_code) == (username, code)
    assert "secret" not in repr(conversation)
    assert "token" not in repr(conversation)


def test_without_an_answer_the_connect_is_told_at_the_end(converse: Any) -> None:
    conversation = Mqtt()
    converse(conversation, [(UP, V4), (DOWN, None)])
    assert conversation.settled
    assert conversation.facts().client_id == b"Bus41"
    assert conversation.facts().return_code is None


@pytest.mark.parametrize(
    "script",
    [
        [(UP, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x05")],
        [(UP, b"\x10\xff\x7f\x00\x04MQTT\x05\x02\x00\x3c\xff\xff\x03")],
        [(UP, V4), (DOWN, b"HTTP/1.1 400")],
        [(UP, V4), (DOWN, b"\x20\x00")],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="mqtt"):
        converse(Mqtt(), script)


@pytest.mark.parametrize(
    ("up", "verdict"),
    [
        (b"", Verdict.NEED_MORE),
        (b"\x10", Verdict.NEED_MORE),
        (V4[:11], Verdict.NEED_MORE),
        (V4[:12], Verdict.MATCH),
        (V3, Verdict.MATCH),
        (V5, Verdict.MATCH),
        (LONG, Verdict.MATCH),
        (BRIDGE, Verdict.MATCH),
        (b"\x10\x01", Verdict.REJECT),  # TDS: login
        (b"\x10\x80\x80\x80\x80", Verdict.REJECT),
        (b"\x10\x11\x00\x04MQTX", Verdict.REJECT),
        (b"\x10\x11\x00\x04MQTT\x06", Verdict.REJECT),
        (b"\x10\x11\x00\x06MQIsdp\x04", Verdict.REJECT),
        (b"\x10\x11\x00\x04MQTT\x04\x03", Verdict.REJECT),
        (b"\x10\x11\x00\x04MQTT\x04\x18", Verdict.REJECT),
    ],
)
def test_detection_by_the_connect(up: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=up)) is verdict


def test_a_server_that_speaks_first_is_no_mqtt() -> None:
    assert detect(Opening(down=WELCOME)) is Verdict.REJECT
