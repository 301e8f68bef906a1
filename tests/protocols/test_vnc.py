"""VNC: security types, and the TLS in VeNCrypt."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, PAUSE, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.vnc import Vnc, detect

UP, DOWN = Direction.UP, Direction.DOWN

VERSIONS = [(DOWN, b"RFB 003.008\n"), (UP, b"RFB 003.008\n")]
OFFER = (DOWN, b"\x03\x01\x12\x13")
VENCRYPT = [*VERSIONS, OFFER, (UP, b"\x13"), (DOWN, b"\0\2"), (UP, b"\0\2")]
SUBTYPES = (DOWN, b"\0\3\0\0\1\0\0\0\1\2\0\0\1\5")


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize(
    ("script", "security", "subtype"),
    [
        ([*VENCRYPT, SUBTYPES, (UP, b"\0\0\1\2"), (DOWN, b"\1")], "VeNCrypt", "TLSVnc"),
        ([*VENCRYPT, SUBTYPES, (UP, b"\0\0\1\5"), (DOWN, b"\1")], "VeNCrypt", "X509Vnc"),
        ([*VERSIONS, OFFER, (UP, b"\x12")], "TLS", None),
    ],
)
def test_tls_begins_right_behind_the_agreement(
    converse: Any, script: Any, security: str, subtype: str | None, chunk: int | None
) -> None:
    conversation = Vnc()
    talk = converse(conversation, [*script, (UP, b"\x16\x03"), (DOWN, b"\x16\x03")], chunk=chunk)
    assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
    assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03", b"\x16\x03")
    assert conversation.details_ready
    details = conversation.details()
    assert (details.server_version, details.client_version) == ("3.8", "3.8")
    assert details.security_offered == ("none", "TLS", "VeNCrypt")
    assert (details.security, details.vencrypt_subtype) == (security, subtype)
    assert details.upgraded


def test_without_tls_all_passes(converse: Any) -> None:
    for chunk in (None, 1):
        for script, security in (
            ([*VERSIONS, OFFER, (UP, b"\1")], "none"),
            ([*VERSIONS, (DOWN, b"\x01\x7f"), (UP, b"\x7f")], "unassigned 127"),
            ([*VERSIONS, (DOWN, b"\0\0\0\0\2no")], None),
            ([VERSIONS[0], (UP, b"RFB 003.003\n"), (DOWN, b"\0\0\0\2")], "vnc authentication"),
            ([(DOWN, b"RFB 004.001\n"), (UP, b"RFB 004.001\n")], None),
            ([*VERSIONS, OFFER, (UP, b"\x13"), (DOWN, b"\0\1"), (UP, b"\0\0")], "VeNCrypt"),
            ([*VENCRYPT, (DOWN, b"\xff")], "VeNCrypt"),
            ([*VENCRYPT, (DOWN, b"\0\0")], "VeNCrypt"),
            ([*VENCRYPT, SUBTYPES, (UP, b"\0\0\1\0")], "VeNCrypt"),
            ([*VENCRYPT, SUBTYPES, (UP, b"\0\0\1\2"), (DOWN, b"\0")], "VeNCrypt"),
        ):
            conversation = Vnc()
            talk = converse(conversation, [*script], chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert not talk.kept[DOWN]
            assert conversation.details_ready
            assert not conversation.details().upgraded
            assert conversation.details().security == security


def test_the_client_waits_for_its_turn(converse: Any) -> None:
    conversation = Vnc()
    talk = converse(conversation, [*VERSIONS, (UP, b"\x13")])
    assert conversation.up is PAUSE
    assert talk.kept[UP] == b"\x13"


def test_after_one_side_ends_the_others_bytes_still_pass(converse: Any) -> None:
    conversation = Vnc()
    converse(conversation, [*VERSIONS, (DOWN, None)])
    assert conversation.up is FORWARD_ALL


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("script", [[(DOWN, b"RFC")], [VERSIONS[0], (UP, b"RFB 3.8\n")]])
def test_bytes_that_break_the_protocol_raise_protocol_error(
    converse: Any, script: Any, chunk: int | None
) -> None:
    with pytest.raises(ProtocolError):
        converse(Vnc(), script, chunk=chunk)


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"RFB 003", Verdict.NEED_MORE),
        (b"RFB 003.008\n", Verdict.MATCH),
        (b"RFB 003.889\n\1", Verdict.MATCH),
        (b"RFB 3", Verdict.NEED_MORE),
        (b"RFB 3.", Verdict.REJECT),
        (b"RTSP/1.0", Verdict.REJECT),
    ],
)
def test_detection_by_version(data: bytes, verdict: Verdict) -> None:
    assert detect(Opening(up=data, down=b"RFB 003.008\n")) is verdict
    alone = Verdict.LIKELY if verdict is Verdict.MATCH else verdict
    assert detect(Opening(down=data)) is alone
    assert detect(Opening(down=data, up_ended=True)) is verdict
