"""adb: who begins how, and where TLS takes over."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.adb import PROTOCOL, Adb
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    Opening,
    Verdict,
)

UP, DOWN = Direction.UP, Direction.DOWN
MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT


def message(command: bytes, data: bytes = b"") -> bytes:
    inverted = bytes(byte ^ 0xFF for byte in command)
    sizes = len(data).to_bytes(4, "little") + sum(data).to_bytes(4, "little")
    return command + b"\0\0\0\1\0\0\x10\0" + sizes + inverted + data


HOST = message(b"CNXN", b"host::features=shell_v2\0")
DEVICE = message(b"CNXN", b"device::ro.product.name=lynx\0")
TLS = message(b"STLS")
HELLO = b"\x16\3\1\1\0\1"
CNXN = b"CNXN\1\0\0\1\0\0\4\0\7\0\0\0\x32\2\0\0\xbc\xb1\xa7\xb1"

CASES = [
    (CNXN[:-1], b"", NEED_MORE),
    (CNXN, b"", MATCH),
    (CNXN[:-1] + b"\xb0", b"", REJECT),
    (b"", DEVICE, LIKELY),  # inside TLS
    (b"", b"000chost:", REJECT),
    (b"CONNECT x:1 HTTP/1.1", b"", REJECT),
    (b"001chost:forward", b"", MATCH),
    (b"001chost-serial:", b"", MATCH),
    (b"001cgit-upload-pack", b"", REJECT),
]


@pytest.mark.parametrize(("up", "down", "verdict"), CASES)
def test_what_an_opening_is_worth(up: bytes, down: bytes, verdict: Verdict) -> None:
    assert PROTOCOL.detect is not None
    ended = not up and verdict is REJECT  # until then it may be an answer
    opening = Opening(up=up, down=down, up_ended=ended)
    assert PROTOCOL.detect(opening) is verdict


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize(
    ("script", "device"),
    [
        ([(UP, HOST), (DOWN, TLS), (UP, TLS + HELLO)], None),
        ([(UP, HOST), (DOWN, DEVICE), (UP, message(b"SYNC") + TLS), (DOWN, TLS)], b"device::"),
    ],
)
def test_tls_begins_when_both_sides_have_said_so(
    converse: Any, script: list[tuple[Direction, bytes]], device: bytes | None, chunk: int | None
) -> None:
    conversation = Adb()
    talk = converse(conversation, [*script, (DOWN, b"\x16\3\3")], chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert conversation.details_ready
    assert conversation.passthrough_reason == "client certificate"
    assert conversation.details().upgraded
    assert bytes(talk.moved[UP] + talk.kept[UP]) == b"".join(b for way, b in script if way is UP)
    assert bytes(talk.kept[UP]) in (b"", HELLO)
    assert bytes(talk.kept[DOWN]) == b"\x16\3\3"
    assert (conversation.details().device or b"").startswith(device or b"")


def test_the_device_that_asks_for_tls_waits_for_the_hosts_word(converse: Any) -> None:
    conversation = Adb()
    converse(conversation, [(UP, HOST), (DOWN, TLS)])
    assert (conversation.up, conversation.down) == (PEEK, PAUSE)
    assert not conversation.details_ready


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_a_device_that_is_not_paired_stays_plain(converse: Any, chunk: int | None) -> None:
    conversation = Adb()
    script = [
        (UP, HOST),
        (DOWN, message(b"AUTH", bytes(20))),
        (UP, message(b"AUTH", bytes(256))),
        (DOWN, DEVICE),
    ]
    converse(conversation, script, chunk=chunk)
    assert conversation.details_ready
    assert conversation.details().device == b"device::ro.product.name=lynx"
    assert conversation.up is PEEK
    talk = converse(conversation, [(UP, message(b"OPEN", b"shell:\0")), (DOWN, TLS)], chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP] + talk.kept[DOWN]
    assert not conversation.details().upgraded


def test_a_request_to_the_server_of_ones_own_machine_passes(converse: Any) -> None:
    conversation = Adb()
    converse(conversation, [(UP, b"000chost:version"), (DOWN, b"OKAY00040029")])
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)


def test_what_is_no_message_is_an_error(converse: Any) -> None:
    with pytest.raises(ProtocolError):
        converse(Adb(), [(UP, HOST), (DOWN, b"hello")])
