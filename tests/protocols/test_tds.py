"""TDS: what both sides agree on before the login, and who logs in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, PAUSE, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.tds import Packets, Tds, detect

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
@pytest.mark.parametrize("encryption", [1, 3, 0x81])
def test_where_all_is_encrypted_tls_begins_with_the_packet_that_carries_it(
    converse: Any, encryption: int, chunk: int | None
) -> None:
    conversation = Tds()
    script = [(UP, PRELOGIN), (DOWN, answer(encryption)), (UP, TLS), (DOWN, TLS)]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert (conversation.inner, conversation.framing) == ("tls", Packets)
    assert conversation.details_ready
    assert (talk.kept[UP], talk.kept[DOWN]) == (TLS, TLS)
    details = conversation.details()
    assert (details.encryption, details.server_version, details.user) == ("all", "16.0.1000", None)


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_tls_for_the_login_alone_is_told_and_passes_in_its_packets(
    converse: Any, chunk: int | None
) -> None:
    conversation = Tds()
    script = [(UP, PRELOGIN), (DOWN, answer(0)), (UP, TLS), (DOWN, TLS)]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details_ready
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]
    assert conversation.details().encryption == "login only"


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_in_tds_8_the_login_follows_whatever_is_said_of_encryption(
    converse: Any, chunk: int | None
) -> None:
    conversation = Tds()
    talk = converse(conversation, [(UP, PRELOGIN), (DOWN, answer(1)), (UP, LOGIN)], chunk=chunk)
    assert conversation.up is FORWARD_ALL
    assert conversation.details().user == "älice".encode()
    assert not talk.kept[UP]


def test_what_follows_waits_for_the_answer(converse: Any) -> None:
    conversation = Tds()
    talk = converse(conversation, [(UP, PRELOGIN + TLS)])
    assert conversation.up is PAUSE
    assert talk.kept[UP] == TLS


@pytest.mark.parametrize("chunk", [None, 1, 7])
@pytest.mark.parametrize(
    "script", [[(UP, PRELOGIN), (DOWN, answer(2)), (UP, LOGIN)], [(UP, LOGIN)]]
)
def test_a_login_in_the_clear_tells_its_user(converse: Any, script: Any, chunk: int | None) -> None:
    conversation = Tds()
    talk = converse(conversation, [*script, (UP, b"\x01")], chunk=chunk)
    assert conversation.details_ready
    assert not talk.kept[UP]
    details = conversation.details()
    assert details.user == "älice".encode()
    assert details.encryption == ("none" if len(script) > 1 else None)


def test_nobody_has_to_wait(converse: Any) -> None:
    conversation = Tds()
    converse(conversation, [(UP, PRELOGIN)])
    assert not conversation.details_ready
    talk = converse(conversation, [(UP, b"\x03"), (DOWN, None)])
    assert conversation.details_ready
    assert not talk.kept[UP]


@pytest.mark.parametrize(
    "script",
    [
        [(UP, b"\x12\x01\x00\x05")],
        [(UP, PRELOGIN), (DOWN, b"HTTP/1.1 400")],
        [(UP, packet(0x12, b"\x00\x00\x06\x00\x40\xff" + bytes(6)))],
        [(UP, LOGIN[:48] + b"\xff\xff" + LOGIN[50:])],
        [(UP, LOGIN[:50] + b"\xff\xff" + LOGIN[52:])],
        [(UP, PRELOGIN), (DOWN, answer(1)), (UP, b"\x03")],
        [(UP, PRELOGIN), (DOWN, answer(1)), (UP, PRELOGIN)],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="tds"):
        converse(Tds(), script)


def test_detection_by_the_first_packet() -> None:
    for up, verdict in (
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
        (LOGIN[:6] + b"\x03" + LOGIN[7:], Verdict.MATCH),
        (b"\x10\x11\x00\x04MQTT", Verdict.REJECT),
        (LOGIN[:15] + b"\x03", Verdict.REJECT),
        (LOGIN[:13] + b"\x01", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


def test_an_answer_alone_is_likely() -> None:
    assert detect(Opening(down=answer(1))) is Verdict.LIKELY
    assert detect(Opening(down=answer(1), up=b"GET ")) is Verdict.REJECT
    assert detect(Opening(down=PRELOGIN)) is Verdict.REJECT


def old_text(value: bytes) -> bytes:
    return value.ljust(30, b"\0") + bytes([len(value)])


OLD_LOGIN = bytes.fromhex("0200020000000000") + b"".join(map(old_text, (b"vm", b"sa", b"x")))
BATCH = bytes.fromhex("0101005c000001001600000012000000020000000000000000000100000073006500")


def test_old_logins_and_what_comes_after_a_login() -> None:
    for up, verdict in (
        (OLD_LOGIN[:-1], Verdict.NEED_MORE),
        (OLD_LOGIN, Verdict.MATCH),
        (OLD_LOGIN[:15] + b"x" + OLD_LOGIN[16:], Verdict.REJECT),
        (OLD_LOGIN[:-1] + b"\x1f", Verdict.REJECT),
        (b"\x02\x00\x00\x20", Verdict.REJECT),
        (BATCH[:17], Verdict.NEED_MORE),
        (BATCH, Verdict.MATCH),
        (b"\x03" + BATCH[1:], Verdict.MATCH),
        (b"\x0e" + BATCH[1:], Verdict.REJECT),
        (BATCH[:16] + b"\1" + BATCH[17:], Verdict.REJECT),
        (answer(1), Verdict.MATCH),
    ):
        assert detect(Opening(up=up)) is verdict


@pytest.mark.parametrize(
    ("up", "user"), [(OLD_LOGIN + bytes(200), b"sa"), (BATCH, None), (answer(1), None)]
)
def test_they_tell_at_most_a_user(converse: Any, up: bytes, user: bytes | None) -> None:
    conversation = Tds()
    talk = converse(conversation, [(UP, up), (DOWN, b"\x04\x01")])
    assert conversation.details_ready
    assert conversation.details().user == user
    assert talk.moved[UP] == up


RECORD = b"\x17\x03\x03\x00\x20" + bytes(range(32))


def unwrapped(data: bytes, size: int) -> bytes:
    packets = Packets()
    pieces = (memoryview(data)[at : at + size] for at in range(0, len(data), size))
    return b"".join(bytes(packets.unwrap(piece)) for piece in pieces)


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 60), st.sampled_from([4, 0x12]))
def test_packets_are_taken_off_however_they_are_split_until_a_record_stands_bare(
    contents: list[bytes], size: int, kind: int
) -> None:
    data = b"".join(packet(kind, content) for content in contents)
    assert unwrapped(data + RECORD, size) == b"".join(contents) + RECORD


def test_what_stands_bare_stays_bare() -> None:
    assert unwrapped(RECORD + packet(0x12, b"x"), 7) == RECORD + packet(0x12, b"x")


@given(st.binary(), st.integers(1, 60))
def test_nothing_that_comes_makes_unwrapping_fail(data: bytes, size: int) -> None:
    assert len(unwrapped(data, size)) <= len(data)


@given(st.binary(min_size=1, max_size=10_000), st.integers(1, 5000))
def test_a_message_is_packets_of_which_the_last_says_so(message: bytes, size: int) -> None:
    data = Packets().wrap(message)
    assert unwrapped(data, size) == message
    heads = []
    while data:
        length = int.from_bytes(data[2:4], "big")
        heads.append((data[0], data[1]))
        assert 8 < length <= min(4096, len(data))
        data = data[length:]
    assert heads == [(0x12, 0)] * (len(heads) - 1) + [(0x12, 1)]
