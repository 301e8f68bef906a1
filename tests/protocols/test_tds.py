"""TDS: what both sides agree on before the login, and who logs in."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import PASS_ALL, Direction, Opening, Verdict
from mitml4.protocols.tds import Tds, detect

UP, DOWN = Direction.UP, Direction.DOWN


def packet(kind: int, body: bytes) -> bytes:
    return bytes([kind, 1]) + (8 + len(body)).to_bytes(2, "big") + b"\x00\x00\x01\x00" + body


def prelogin(kind: int, *options: tuple[int, bytes]) -> bytes:
    table, values = b"", b""
    for token, value in options:
        offset = 5 * len(options) + 1 + len(values)
        table += bytes([token]) + offset.to_bytes(2, "big") + len(value).to_bytes(2, "big")
        values += value
    return packet(kind, table + b"\xff" + values)


def login(user: str) -> bytes:
    texts = "host".encode("utf-16-le") + user.encode("utf-16-le") + b"\xa5s\xa5e\xa5c"
    places = [(94, 4), (102, len(user)), (102 + 2 * len(user), 3)] + [(94, 0)] * 11
    table = b"".join(at.to_bytes(2, "little") + size.to_bytes(2, "little") for at, size in places)
    body = b"\x04\x00\x00\x74" + bytes(28) + table + bytes(2) + texts
    return packet(0x10, (4 + len(body)).to_bytes(4, "little") + body)


def answer(encryption: int) -> bytes:
    return prelogin(4, (0, b"\x10\x00\x03\xe8\x00\x00"), (1, bytes([encryption])))


PRELOGIN = prelogin(0x12, (0, b"\x11\0\0\0\0\0"), (1, b"\x01"), (2, b"\0"), (4, b"\0"))
LOGIN = login("älice")
TLS = packet(0x12, b"\x16\x03\x01\x00\x05hello")


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize(
    ("encryption", "name"), [(0, "login only"), (1, "all"), (3, "all"), (0x81, "all")]
)
def test_agreed_encryption_is_told_and_passes_in_its_packets(
    converse: Any, encryption: int, name: str, chunk: int | None
) -> None:
    conversation = Tds()
    script = [(UP, PRELOGIN), (DOWN, answer(encryption)), (UP, TLS), (DOWN, TLS)]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (PASS_ALL, PASS_ALL)
    assert conversation.settled
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]
    facts = conversation.facts()
    assert (facts.encryption, facts.server_version, facts.user) == (name, "16.0.1000", None)


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize(
    "script", [[(UP, PRELOGIN), (DOWN, answer(2)), (UP, LOGIN)], [(UP, LOGIN)]]
)
def test_a_login_in_the_clear_tells_its_user(converse: Any, script: Any, chunk: int | None) -> None:
    conversation = Tds()
    talk = converse(conversation, [*script, (UP, b"\x01")], chunk=chunk)
    assert conversation.settled
    assert not talk.kept[UP]
    facts = conversation.facts()
    assert facts.user == "älice".encode()
    assert facts.encryption == ("none" if len(script) > 1 else None)


def test_nobody_has_to_wait(converse: Any) -> None:
    conversation = Tds()
    converse(conversation, [(UP, PRELOGIN)])
    assert not conversation.settled
    talk = converse(conversation, [(UP, b"\x03"), (DOWN, None)])
    assert conversation.settled
    assert not talk.kept[UP]


@pytest.mark.parametrize(
    "script",
    [
        [(UP, b"\x12\x01\x00\x05")],
        [(UP, PRELOGIN), (DOWN, b"HTTP/1.1 400")],
        [(UP, packet(0x12, b"\x00\x00\x06\x00\x40\xff" + bytes(6)))],
        [(UP, LOGIN[:48] + b"\xff\xff" + LOGIN[50:])],
        [(UP, LOGIN[:50] + b"\xff\xff" + LOGIN[52:])],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="tds"):
        converse(Tds(), script)


@pytest.mark.parametrize(
    ("up", "verdict"),
    [
        (b"", Verdict.NEED_MORE),
        (PRELOGIN[:8], Verdict.NEED_MORE),
        (PRELOGIN[:-1], Verdict.NEED_MORE),
        (PRELOGIN, Verdict.MATCH),
        (b"\x12\x34\x00\x10", Verdict.REJECT),  # AJP
        (b"\x12\x01\x00\x20\x00\x00\x01\x00\x01", Verdict.REJECT),
        (prelogin(0x12, (0, bytes(6)), (0, b"\0")), Verdict.REJECT),
        (TLS, Verdict.REJECT),
        (LOGIN[:15], Verdict.NEED_MORE),
        (LOGIN, Verdict.MATCH),
        (b"\x10\x11\x00\x04MQTT", Verdict.REJECT),
        (LOGIN[:15] + b"\x03", Verdict.REJECT),
        (LOGIN[:13] + b"\x01", Verdict.REJECT),
    ],
)
def test_detection_by_the_first_packet(up: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=up)) is verdict


def test_a_server_that_speaks_first_is_no_tds() -> None:
    assert detect(Opening(down=answer(1))) is Verdict.REJECT
