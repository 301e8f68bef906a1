"""Cassandra: the client's frames up to STARTUP."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.cassandra import Cassandra, CassandraDetails, detect
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict

UP, DOWN = Direction.UP, Direction.DOWN


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def startup(*pairs: tuple[bytes, bytes], version: int = 4) -> bytes:
    body = len(pairs).to_bytes(2, "big") + b"".join(text(a) + text(b) for a, b in pairs)
    return bytes([version]) + b"\0\0\1\1" + len(body).to_bytes(4, "big") + body


def options(version: int) -> bytes:
    return bytes([version]) + b"\0\0\0\5\0\0\0\0"


STARTUP = startup((b"CQL_VERSION", b"3.3.1"))
WITH_DRIVER = startup(
    (b"DRIVER_NAME", b"DataStax Python Driver"),
    (b"DRIVER_VERSION", b"3.25"),
    (b"CQL_VERSION", b"3.4.5"),
    version=5,
)
SUPPORTED = b"\x83\0\0\0\6\0\0\0\2\0\0"


def test_the_clients_first_frames(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for frames, version, cql, driver in (
            (options(4) + STARTUP, 4, b"3.3.1", None),
            (options(0x42) + startup((b"CQL_VERSION", b"3.4.5"), version=0x42), 66, b"3.4.5", None),
            (options(5) + options(5) + WITH_DRIVER, 5, b"3.4.5", b"DataStax Python Driver 3.25"),
            (STARTUP, 4, b"3.3.1", None),
            (options(4) + b"\xff\xff", 4, None, None),
        ):
            conversation = Cassandra()
            talk = converse(
                conversation, [(UP, frames), (DOWN, SUPPORTED), (UP, b"any")], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert talk.moved == {UP: frames + b"any", DOWN: SUPPORTED}
            details = conversation.details()
            assert (details.version, details.cql_version, details.driver) == (version, cql, driver)


@pytest.mark.parametrize(
    "frames", [options(4) + b"\4\0\0\1\x0f", STARTUP[:9] + b"\0\2" + STARTUP[11:]]
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, frames: bytes) -> None:
    with pytest.raises(ProtocolError, match="cassandra"):
        converse(Cassandra(), [(UP, frames)])


def test_detection_by_the_first_frame() -> None:
    for up, down, verdict in (
        (b"", b"", Verdict.NEED_MORE),
        (options(4)[:8], b"", Verdict.NEED_MORE),
        (options(4), b"", Verdict.LIKELY),
        (options(4), SUPPORTED, Verdict.MATCH),
        (options(5) + WITH_DRIVER, b"", Verdict.MATCH),
        (options(0x42), b"", Verdict.LIKELY),  # DataStax Enterprise, 2
        (startup((b"CQL_VERSION", b"3.0.0"), version=0x41), b"", Verdict.MATCH),
        (options(0x43), b"", Verdict.REJECT),
        (STARTUP[:23], b"", Verdict.NEED_MORE),
        (STARTUP[:24], b"", Verdict.MATCH),
        (startup((b"CQL_VERSION", b"3.0.0"), version=3), b"", Verdict.MATCH),
        (options(3), b"", Verdict.LIKELY),
        (options(3), SUPPORTED[:4], Verdict.LIKELY),
        (options(3), SUPPORTED, Verdict.MATCH),
        (options(3), b"\x82\0\0\0\0", Verdict.MATCH),
        (options(3), b"\x03\0\0\0\5", Verdict.NEED_MORE),  # RTMP
        (options(3) + b"\0\0", b"\x03\0\0\0\5", Verdict.REJECT),
        (b"\x04\x01\x00\x50", b"", Verdict.REJECT),  # SOCKS4
        (b"\x05\x00\x0b\x03\x10", b"", Verdict.REJECT),  # DCERPC
        (b"\x03\x00\x00\x13\x0e", b"", Verdict.REJECT),  # RDP
        (b"\x04\x00\x00\x00\x05\x00\x00\x00\x01", b"", Verdict.REJECT),
        (b"\x04\x00\x80", b"", Verdict.REJECT),
        (startup((b"lower", b"x")), b"", Verdict.REJECT),
    ):
        assert detect(Opening(up=up, down=down)) is verdict


def test_options_that_nobody_answers_are_an_array_of_numbers() -> None:
    assert detect(Opening(up=options(4), down_ended=True)) is Verdict.REJECT


ANSWER = b"\x84\0\0\0\6\0\0\0\x20\0\2\0\x0bCOMPRESSION\0\1\0\3lz4\0\3CQL"


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_an_answer_alone_is_known_and_says_nothing(converse: Any, direction: Direction) -> None:
    assert detect(Opening(down=SUPPORTED)) is Verdict.REJECT
    assert detect(Opening(down=ANSWER[:20])) is Verdict.NEED_MORE
    assert detect(Opening(down=ANSWER)) is Verdict.LIKELY
    assert detect(Opening(up=ANSWER)) is Verdict.MATCH
    assert detect(Opening(down=ANSWER, up=b"GET /")) is Verdict.REJECT
    conversation = Cassandra()
    converse(conversation, [(direction, ANSWER), (direction.other, None)])
    assert conversation.details_ready
    assert conversation.details() == CassandraDetails()
