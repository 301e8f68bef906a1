"""VNC: security types, and the TLS in VeNCrypt."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import HOLD, INNER, PASS_ALL, Direction, Opening, Verdict
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
    assert (conversation.up, conversation.down) == (INNER, INNER)
    assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03", b"\x16\x03")
    assert conversation.settled
    facts = conversation.facts()
    assert (facts.server_version, facts.client_version) == ("3.8", "3.8")
    assert facts.security_offered == ("none", "TLS", "VeNCrypt")
    assert (facts.security, facts.vencrypt_subtype) == (security, subtype)
    assert facts.upgraded


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize(
    ("script", "security"),
    [
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
    ],
)
def test_without_tls_all_passes(
    converse: Any, script: Any, security: str | None, chunk: int | None
) -> None:
    conversation = Vnc()
    talk = converse(conversation, [*script], chunk=chunk)
    assert (conversation.up, conversation.down) == (PASS_ALL, PASS_ALL)
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]
    assert conversation.settled
    assert not conversation.facts().upgraded
    assert conversation.facts().security == security


def test_the_client_waits_for_its_turn(converse: Any) -> None:
    conversation = Vnc()
    talk = converse(conversation, [*VERSIONS, (UP, b"\x13")])
    assert conversation.up is HOLD
    assert talk.kept[UP] == b"\x13"


def test_a_side_that_leaves_lets_the_others_last_words_pass(converse: Any) -> None:
    conversation = Vnc()
    converse(conversation, [*VERSIONS, (DOWN, None)])
    assert conversation.up is PASS_ALL


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
