"""RDP: the request, the confirm, and whose the next byte is."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    SWITCH,
    Direction,
    LayerContext,
    Opening,
    Verdict,
)
from mitml4.protocols.rdp import Rdp, RdpDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN


def x224(code: int, body: bytes = b"") -> bytes:
    length = (11 + len(body)).to_bytes(2, "big")
    return b"\x03\x00" + length + bytes([6 + len(body), code]) + bytes(5) + body


def negotiation(kind: int, value: int) -> bytes:
    return bytes([kind, 0, 8, 0]) + value.to_bytes(4, "little")


COOKIE = b"Cookie: mstshash=alice\r\n"
REQUEST = x224(0xE0, COOKIE + negotiation(1, 3))
NO_COOKIE = x224(0xE0, negotiation(1, 11))
ONLY_COOKIE = x224(0xE0, COOKIE)
WITH_CORRELATION = x224(0xE0, negotiation(1, 3) + b"\x06\x00\x24\x00" + bytes(32))
CONFIRM = x224(0xD0, negotiation(2, 2))
HELLO = b"\x16\x03\x01\x02\x00"
MCS = b"\x03\x00\x01\xac\x02\xf0\x80\x7f\x65\x82\x01\xa0"
CREDSSP = b"\x30\x37\xa0\x03\x02\x01\x06\xa1\x30"
INSIDE = ("rdp", "tls")


def test_tls_begins_behind_the_confirm(converse: Any) -> None:
    for chunk in (None, 1, 4):
        for request_bytes, cookie, offered in (
            (REQUEST, b"mstshash=alice", ("tls", "credssp")),
            (NO_COOKIE, None, ("tls", "credssp", "credssp with early authorization")),
            (WITH_CORRELATION, None, ("tls", "credssp")),
        ):
            for chosen, name in (
                (1, "tls"),
                (2, "credssp"),
                (8, "credssp with early authorization"),
            ):
                conversation = Rdp()
                confirm = x224(0xD0, negotiation(2, chosen))
                script = [(UP, request_bytes + HELLO), (DOWN, confirm + b"\x16")]
                talk = converse(conversation, script, chunk=chunk)
                assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
                assert (talk.kept[UP], talk.kept[DOWN]) == (HELLO, b"\x16")
                assert conversation.details_ready
                details = conversation.details()
                assert (details.cookie, details.protocols_offered, details.protocol) == (
                    cookie,
                    offered,
                    name,
                )
                assert details.upgraded


def test_everything_else_passes(converse: Any) -> None:
    for chunk in (None, 1):
        for script, protocol in (
            ([(UP, REQUEST), (DOWN, x224(0xD0, negotiation(2, 0)))], "rdp"),
            ([(UP, ONLY_COOKIE), (DOWN, x224(0xD0))], "rdp"),
            ([(UP, x224(0xE0)), (DOWN, x224(0xD0))], "rdp"),
            ([(UP, REQUEST), (DOWN, x224(0xD0, negotiation(3, 2)))], "refused: TLS is not allowed"),
            ([(UP, REQUEST), (DOWN, x224(0xD0, negotiation(3, 99)))], "refused: failure 0x63"),
            ([(UP, REQUEST), (DOWN, b"HTTP/1.1 400")], None),
            ([(DOWN, b"early"), (UP, REQUEST)], None),
            ([(UP, REQUEST), (DOWN, None)], None),
        ):
            conversation = Rdp()
            talk = converse(conversation, [*script, (UP, MCS)], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert not talk.kept[DOWN]
            assert conversation.details_ready
            assert (conversation.details().protocol, conversation.details().upgraded) == (
                protocol,
                False,
            )


def test_the_client_waits_for_the_confirm(converse: Any) -> None:
    conversation = Rdp()
    talk = converse(conversation, [(UP, REQUEST + MCS)])
    assert conversation.up is PAUSE
    assert talk.kept[UP] == MCS


def test_inside_its_tls_all_passes(converse: Any) -> None:
    conversation = Rdp(context=LayerContext(stack=INSIDE))
    talk = converse(conversation, [(UP, CREDSSP)])
    assert conversation.details_ready
    assert talk.moved[UP] == CREDSSP


@pytest.mark.parametrize(
    "script",
    [
        [(UP, b"\x03\x00\x00\x0a")],
        [(UP, x224(0xE0, b"Cookie: " + b"x" * 240))],
        [(UP, REQUEST), (DOWN, b"\x03\x00\x00\x2b\x00\x03")],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="rdp"):
        converse(Rdp(), script)


def test_detection_by_cookie_or_negotiation() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (REQUEST[:11], Verdict.NEED_MORE),
        (REQUEST[:18], Verdict.NEED_MORE),
        (REQUEST[:19], Verdict.MATCH),
        (NO_COOKIE[:18], Verdict.NEED_MORE),
        (NO_COOKIE, Verdict.MATCH),
        (x224(0xE0), Verdict.NEED_MORE),
        (x224(0xE0) + MCS, Verdict.MATCH),
        (x224(0xE0) + b"\x03\x00\x00\x19\x02\xf0\x80\x32", Verdict.REJECT),  # S7
        (x224(0xE0, b"\xc1\x02\x01\x00\xc2\x02\x01\x02\xc0\x01\x0a"), Verdict.REJECT),  # S7
        (MCS, Verdict.REJECT),
        (CREDSSP, Verdict.REJECT),
        (b"\x03\x00\x00\x13\x0f", Verdict.REJECT),
    ):
        assert detect(Opening(up=up)) is verdict


@pytest.mark.parametrize(
    ("up", "verdict"),
    [
        (MCS[:8], Verdict.NEED_MORE),
        (MCS, Verdict.MATCH),
        (CREDSSP[:6], Verdict.NEED_MORE),
        (CREDSSP, Verdict.MATCH),
        (b"\x30\x0c\x02\x01\x01", Verdict.REJECT),
        (b"GET ", Verdict.REJECT),
    ],
)
def test_inside_its_tls_it_goes_on_as_mcs_or_credssp(up: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=up, stack=INSIDE)) is verdict


CONFIRM = bytes.fromhex("030000130ed000001234000201080001000000")


def test_a_confirm_alone_is_likely_and_says_nothing(converse: Any) -> None:
    assert detect(Opening(down=CONFIRM[:-1])) is Verdict.NEED_MORE
    assert detect(Opening(down=CONFIRM)) is Verdict.LIKELY
    assert detect(Opening(down=CONFIRM, up_ended=True)) is Verdict.MATCH
    assert detect(Opening(up=CONFIRM)) is Verdict.MATCH
    assert detect(Opening(down=CONFIRM, up=b"GET ")) is Verdict.REJECT
    assert detect(Opening(down=x224(0xD0))) is Verdict.REJECT
    assert detect(Opening(down=REQUEST)) is Verdict.REJECT
    for direction in (UP, DOWN):
        conversation = Rdp()
        converse(conversation, [(direction, CONFIRM)])
        assert conversation.details_ready
        assert conversation.details() == RdpDetails()
