"""Kafka: the first request's header, and the answer to one without a name."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, Direction, Opening, Verdict
from mitml4.protocols.kafka import Kafka, KafkaDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN


def sized(body: bytes, size: int) -> bytes:
    return len(body).to_bytes(size, "big") + body


def request(
    api: int, version: int, client_id: bytes | None, body: bytes = b"", number: int = 129
) -> bytes:
    name = b"\xff\xff" if client_id is None else sized(client_id, 2)
    return sized(bytes([0, api, 0, version]) + number.to_bytes(4, "big") + name + body, 4)


VERSIONS = request(18, 0, b"rdkafka", bytes(4))
SOFTWARE = request(18, 3, b"console", b"\x00\x12apache-kafka-java\x063.6.1\x00")
METADATA = request(3, 2, b"rdkafka", b"\0\0\0\1\0\4LOGS")
ANONYMOUS = request(18, 0, None)
PRODUCE = request(0, 3, b"rdkafka", b"\xff\xff\0\1" + bytes(400))
ANSWER = b"\0\0\1\x5a\0\0\0\x81\0\0\0\0\0\x38"


def test_the_first_request(converse: Any) -> None:
    for chunk in (None, 1, 5):
        for first, api, version, client_id, software in (
            (VERSIONS, "ApiVersions", 0, b"rdkafka", None),
            (SOFTWARE, "ApiVersions", 3, b"console", b"apache-kafka-java 3.6.1"),
            (METADATA, "Metadata", 2, b"rdkafka", None),
            (ANONYMOUS, "ApiVersions", 0, None, None),
            (PRODUCE, "Produce", 3, b"rdkafka", None),
            (request(80, 0, b"x"), "api 80", 0, b"x", None),
        ):
            conversation = Kafka()
            talk = converse(
                conversation, [(UP, first), (DOWN, ANSWER), (UP, METADATA)], chunk=chunk
            )
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert conversation.details_ready
            assert talk.moved == {UP: first + METADATA, DOWN: ANSWER}
            details = conversation.details()
            assert (details.api, details.api_version) == (api, version)
            assert (details.client_id, details.client_software) == (client_id, software)


@pytest.mark.parametrize("first", [b"\0\0\0\x09", request(18, 3, b"x", b"\x01")])
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, first: bytes) -> None:
    with pytest.raises(ProtocolError, match="kafka"):
        converse(Kafka(), [(UP, first)])


def test_detection_by_the_first_request() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (VERSIONS[:12], Verdict.NEED_MORE),
        (VERSIONS[:20], Verdict.NEED_MORE),
        (VERSIONS[:21], Verdict.MATCH),
        (METADATA, Verdict.MATCH),
        (PRODUCE[:30], Verdict.LIKELY),
        (request(17, 1, b"java", number=0x7FFFFFF8), Verdict.MATCH),
        (request(0, 3, b"x"), Verdict.LIKELY),
        (ANONYMOUS, Verdict.LIKELY),
        (request(3, 0, b""), Verdict.LIKELY),
        (request(0, 3, None), Verdict.REJECT),
        (request(18, 0, b"\x01\x02"), Verdict.REJECT),
        (request(18, 21, b"x"), Verdict.REJECT),
        (request(99, 0, b"x"), Verdict.REJECT),
        (b"\0\0\0\x0f" + VERSIONS[4:], Verdict.REJECT),
        (b"\0\x11\0\0", Verdict.REJECT),  # DNS
        (b"\0\0\0\x10\0\3\0\0user\0a\0\0", Verdict.REJECT),  # PostgreSQL
        (b"\0\0\0\x2c\0\0\0\0" + bytes(8), Verdict.REJECT),  # ZooKeeper
    ):
        assert detect(Opening(up=up)) is verdict


@pytest.mark.parametrize(
    ("down", "verdict"),
    [
        (ANSWER[:7], Verdict.LIKELY),
        (ANSWER[:8], Verdict.MATCH),
        (ANSWER[:7] + b"\x82", Verdict.REJECT),
        (b"HTTP/1.1", Verdict.REJECT),
    ],
)
def test_a_request_without_a_name_needs_its_answer(down: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=ANONYMOUS, down=down)) is verdict


VERSIONS_ALONE = bytes.fromhex(
    "0000015a0000008c00000000003800000000000900010000000c0002000000060003"
)


def test_of_answers_alone_the_list_of_versions_is_known() -> None:
    assert detect(Opening(down=ANSWER)) is Verdict.NEED_MORE
    assert detect(Opening(down=ANSWER + b"\0\x23")) is Verdict.REJECT
    assert detect(Opening(down=VERSIONS_ALONE[:-7])) is Verdict.NEED_MORE
    assert detect(Opening(down=VERSIONS_ALONE)) is Verdict.LIKELY
    assert detect(Opening(up=VERSIONS_ALONE)) is Verdict.MATCH
    assert detect(Opening(down=VERSIONS_ALONE[:20] + b"\1" + VERSIONS_ALONE[21:])) is Verdict.REJECT


def test_an_answer_says_nothing(converse: Any) -> None:
    conversation = Kafka()
    converse(conversation, [(UP, VERSIONS_ALONE)])
    assert conversation.details_ready
    assert conversation.details() == KafkaDetails()
