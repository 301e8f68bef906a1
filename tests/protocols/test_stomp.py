"""STOMP: its CONNECT among HTTP's and NATS's, and who connects to what."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import Direction, Opening, Verdict
from mitml4.protocols.stomp import Stomp, StompDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN


@pytest.mark.parametrize("chunk", [None, 1])
def test_the_frame_that_connects_and_its_answer_are_told(converse: Any, chunk: int | None) -> None:
    conversation = Stomp()
    script = [
        (UP, b"CONNECT\nlogin:alice\npasscode:secret\nhost:/\n\n\0\n"),
        (DOWN, b"CONNECTED\nversion:1.2\nserver:RabbitMQ/3.12\n\n\0"),
    ]
    talk = converse(conversation, script, chunk=chunk)
    assert not talk.kept[UP]
    assert conversation.details_ready
    assert conversation.details() == StompDetails(
        host=b"/", username=b"alice", version=b"1.2", server=b"RabbitMQ/3.12"
    )
    assert "secret" not in repr(conversation)


@pytest.mark.parametrize(
    ("answer", "version"),
    [(b"CONNECTED\nsession:1\n\n\0", b"1.0"), (b"ERROR\nversion:1.2\n\nno\0", None)],
)
def test_a_version_is_what_the_server_agreed_to(
    converse: Any, answer: bytes, version: bytes | None
) -> None:
    conversation = Stomp()
    converse(conversation, [(UP, b"STOMP\naccept-version:1.1\n\n\0"), (DOWN, answer)])
    assert conversation.details().version == version


def test_detection_by_the_first_header() -> None:
    for up, verdict in (
        (b"CONN", Verdict.NEED_MORE),
        (b"STOMP\r", Verdict.NEED_MORE),
        (b"CONNECT\nhost", Verdict.NEED_MORE),
        (b"CONNECT\nhost:a", Verdict.NEED_MORE),
        (b"CONNECT\nhost:a\n", Verdict.MATCH),
        (b"STOMP\r\naccept-version:1.2\r\n", Verdict.MATCH),
        (b"CONNECT\n\n\0", Verdict.MATCH),
        (b"CONNECT\n\n", Verdict.NEED_MORE),
        (b"CONNECT\n\nx", Verdict.REJECT),
        (b"CONNECT\nHost: a\n", Verdict.REJECT),
        (b"CONNECT a:443 HTTP/1.1\r\n", Verdict.REJECT),
        (b"CONNECT {", Verdict.REJECT),
        (b"CONNECTX", Verdict.REJECT),
        (b"STO\n", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


def test_detection_by_the_answer_alone() -> None:
    assert detect(Opening(down=b"CONNECTED\nversion:1.1\n")) is Verdict.LIKELY
    assert detect(Opening(down=b"CONNECTED\n")) is Verdict.NEED_MORE
