"""ManageSieve: capabilities, literals, and the point at which TLS begins."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PEEK,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Verdict,
)
from mitml4.protocols.managesieve import ManageSieve, detect

UP, DOWN = Direction.UP, Direction.DOWN

GREETING = (DOWN, b'"IMPLEMENTATION" "Dovecot Pigeonhole"\r\n"STARTTLS"\r\nOK "ready"\r\n')
STARTTLS = (UP, b"StartTLS\r\n")
OK = (DOWN, b'OK "go"\r\n')
NO = (DOWN, b"NO (ENCRYPT-NEEDED)\r\n")

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "at once": [GREETING, STARTTLS, OK],
    "refused once": [GREETING, STARTTLS, NO, STARTTLS, OK],
    "bare": [GREETING, STARTTLS, (DOWN, b"OK\r\n")],
    "text in a literal": [GREETING, STARTTLS, (DOWN, b"OK {4}\r\nOK\r\n\r\n")],
    "capabilities again": [GREETING, (UP, b"CAPABILITY\r\n"), GREETING, STARTTLS, OK],
    "question in a literal": [
        GREETING,
        (UP, b'AUTHENTICATE "PLAIN" {10+}\r\nSTARTTLS\r\n\r\n'),
        NO,
        STARTTLS,
        OK,
    ],
    "yes in a literal": [
        (DOWN, GREETING[1][:-12] + b'"SIEVE" {4}\r\nOK\r\n\r\nOK\r\n'),
        STARTTLS,
        OK,
    ],
    "challenge": [
        GREETING,
        (UP, b'AUTHENTICATE "CRAM-MD5"\r\n'),
        (DOWN, b'"b2s="\r\n'),
        (UP, b'"*"\r\n'),
        NO,
        STARTTLS,
        OK,
    ],
}


def test_tls_begins_right_behind_the_servers_ok(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = ManageSieve()
            script = [*UPGRADED[name], (UP, b"\x16\x03\n"), (DOWN, b"\x16\x03\n")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\n", b"\x16\x03\n")
            assert conversation.details().upgraded
            assert conversation.details().greeting == b"Dovecot Pigeonhole"


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    "login",
    [
        [(UP, b'AUTHENTICATE "PLAIN" "AGFsaWNlAHNlY3JldA=="\r\n'), OK],
        [(UP, b'AUTHENTICATE "PLAIN"\r\n'), (UP, b'"AGFsaWNlAHNlY3JldA=="\r\n'), OK],
    ],
)
def test_behind_a_login_all_passes(converse: Any, login: Any, chunk: int | None) -> None:
    conversation = ManageSieve()
    talk = converse(conversation, [GREETING, *login, STARTTLS, OK], chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP]
    assert conversation.details().username == b"alice"
    assert "secret" not in repr(conversation)


def test_inside_its_own_tls_the_server_greets_again(converse: Any) -> None:
    conversation = ManageSieve(context=LayerContext(stack=("managesieve", "tls")))
    converse(conversation, [GREETING])
    assert conversation.up is PEEK
    assert conversation.details().greeting == b"Dovecot Pigeonhole"


@pytest.mark.parametrize(
    ("up", "down", "verdict"),
    [
        (b"", b'"IMPL', Verdict.NEED_MORE),
        (b"", b'"implementation"', Verdict.LIKELY),
        (b"", b'"SIEVE" ', Verdict.REJECT),
        (b"STARTTLS\r\n", b'"IMPLEMENTATION" "x"\r\n', Verdict.MATCH),
        (b"STARTTLS\r\n", b"220 ESMTP\r\n", Verdict.REJECT),
        (b"FOO\r\n", b'"IMPLEMENTATION" "Dovecot (Debian) Pigeonhole"\r\n', Verdict.LIKELY),
        (b"\x16\x03\x01", b'"IMPLEMENTATION" "x"\r\n', Verdict.REJECT),
    ],
)
def test_detection_by_capabilities_and_command(up: bytes, down: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=up, down=down)) is verdict
