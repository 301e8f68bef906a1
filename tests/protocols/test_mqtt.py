"""MQTT: the CONNECT of each version, and its answer."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.mqtt import Mqtt, MqttDetails, detect

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


def test_a_connect_and_its_answer(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for first, version, client_id, username in (
            (V3, "3.1", b"dev", True),
            (V4, "3.1.1", b"Bus41", False),
            (V5, "5.0", b"", True),
            (LONG, "3.1.1", b"d" * 200, False),
            (BRIDGE, "3.1.1", b"br", False),
        ):
            for answer, code in (
                (WELCOME, 0),
                (b"\x20\x02\x00\x05", 5),
                (b"\x20\x03\x00\x86\x00", 0x86),
            ):
                conversation = Mqtt()
                script = [(UP, first + b"\x82\x0d"), (DOWN, answer + b"\x90\x03")]
                talk = converse(conversation, script, chunk=chunk)
                assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
                assert conversation.details_ready
                assert talk.moved == {UP: first + b"\x82\x0d", DOWN: answer + b"\x90\x03"}
                details = conversation.details()
                assert (details.version, details.client_id) == (version, client_id)
                assert (details.has_username, details.return_code) == (username, code)
                assert "secret" not in repr(conversation)
                assert "token" not in repr(conversation)


def test_without_an_answer_the_connect_is_told_at_the_end(converse: Any) -> None:
    conversation = Mqtt()
    converse(conversation, [(UP, V4), (DOWN, None)])
    assert conversation.details_ready
    assert conversation.details().client_id == b"Bus41"
    assert conversation.details().return_code is None


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


def test_detection_by_the_connect() -> None:
    for up, verdict in (
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
    ):
        assert detect(Opening(up=up)) is verdict


PUBLISH = b"2\x09\0\3a/b\0\2hi"


def test_packets_in_the_middle(converse: Any) -> None:
    for packets, verdict in (
        (b"\xc0", Verdict.NEED_MORE),
        (b"\xc0\0@\2\0\2" + PUBLISH[:-1], Verdict.NEED_MORE),
        (b"\xc0\0@\2\0\2" + PUBLISH, Verdict.MATCH),
        (b"\xd0\0" + PUBLISH, Verdict.MATCH),
        (PUBLISH, Verdict.NEED_MORE),
        (PUBLISH + b"\xe0\0", Verdict.MATCH),
        (PUBLISH + PUBLISH, Verdict.MATCH),
        (PUBLISH + b"\xe0\1", Verdict.REJECT),
        (PUBLISH + b"\xe1", Verdict.REJECT),
        (b" \2\0\0\x90\3\0\1\1", Verdict.MATCH),
        (b"\x82\x08\0\1\0\3a/b\1" + PUBLISH, Verdict.MATCH),
        (b"\x82\x09\0\1\0\0\3a/b\1" + PUBLISH, Verdict.MATCH),  # 5.0
        (b"\x82\x16*.youtube-nocookie.com\x82\x0d*.youtube.com", Verdict.REJECT),  # a certificate's
        (b" \2\0\0\x90\3\0\1\3", Verdict.REJECT),
        (b"\xc0\0" * 8, Verdict.REJECT),
        (b"\xc0\1", Verdict.REJECT),
        (b"@\2\0\0", Verdict.REJECT),
        (b"2\x09\0\3a\0b", Verdict.REJECT),
        (b"200 hello\r\n", Verdict.REJECT),
        (b"POST / HTTP/1.1\r\n", Verdict.REJECT),
    ):
        assert detect(Opening(up=packets)) is verdict
        likely = Verdict.LIKELY if verdict is Verdict.MATCH else verdict
        assert detect(Opening(down=packets)) is likely


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_the_middle_of_a_connection_says_nothing(converse: Any, direction: Direction) -> None:
    conversation = Mqtt()
    converse(conversation, [(direction, b"\xd0\0" + PUBLISH)])
    assert conversation.details_ready
    assert conversation.details() == MqttDetails()


def test_a_welcome_alone_is_told(converse: Any) -> None:
    conversation = Mqtt()
    converse(conversation, [(DOWN, b" \2\0\5\x90\3\0\1\1")])
    assert conversation.details() == MqttDetails(return_code=5)
