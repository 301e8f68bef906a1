"""SMB and NetBIOS sessions, and the remote procedure calls inside SMB."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.smb import MAX_LOOKED_INTO, PROTOCOLS, Smb

UP, DOWN = Direction.UP, Direction.DOWN
MATCH, LIKELY, NEED_MORE, REJECT = (
    Verdict.MATCH,
    Verdict.LIKELY,
    Verdict.NEED_MORE,
    Verdict.REJECT,
)
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

SESSION = b"\x81\0\0\x44 " + b"CKFDENEC" * 4 + b"\0 " + b"EGFCCACA" * 4 + b"\0"
GRANTED = b"\x82\0\0\0"
SMB = b"\0\0\0\x2f\xffSMBr"
CASES = [
    ("smb", b"\0\0\0\x1f\xff", b"", REJECT),  # shorter than any
    ("smb", b"\0\0\0\x40\xfeSMB", b"", MATCH),
    ("smb", b"\0\0\0\x40\xfdSMB", b"", MATCH),
    ("smb", b"\0\0\0\x40\xfbSMB", b"", REJECT),
    ("smb", SESSION, b"", NEED_MORE),
    ("smb", SESSION, b"\x82\0\0\0", NEED_MORE),
    ("smb", SESSION + SMB, b"", MATCH),
    ("smb", SESSION + b"\0\0\0\x40hello", b"", REJECT),
    ("smb", b"", SMB, LIKELY),  # a capture of the replies
    ("smb", b"", GRANTED + SMB, LIKELY),
    ("smb", b"", GRANTED + b"\0\0\0\x40hello", REJECT),
    ("netbios-ssn", SESSION[:-1], b"", NEED_MORE),
    ("netbios-ssn", SESSION, b"", LIKELY),
    ("netbios-ssn", SESSION, b"\x82\0\0\0", LIKELY),
    ("netbios-ssn", SESSION + SMB[:5], b"", LIKELY),
    ("netbios-ssn", SESSION + SMB, b"", REJECT),
    ("netbios-ssn", SESSION + b"\0\0\0\x40hello", b"", MATCH),
    ("netbios-ssn", SESSION.replace(b"CK", b"ck"), b"", REJECT),
    ("netbios-ssn", b"", b"\x82", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        ended = not up and verdict is REJECT  # until then it may be an answer
        opening = Opening(up=up, down=down, up_ended=ended)
        assert DETECT[name](opening) is verdict


def test_a_session_that_ends_behind_its_request_was_netbios() -> None:
    assert DETECT["netbios-ssn"](Opening(up=SESSION, up_ended=True)) is MATCH


def packet(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(3, "big") + message


def smb1(command: int, body: bytes = b"") -> bytes:
    return packet(b"\xffSMB" + bytes([command]) + bytes(27) + body)


def smb2(command: int, body: bytes = b"") -> bytes:
    header = b"\xfeSMB\x40\0" + bytes(6) + command.to_bytes(2, "little") + bytes(50)
    return packet(header + body)


def negotiated(dialect: int) -> bytes:
    return smb2(0, b"\x41\0\1\0" + dialect.to_bytes(2, "little") + bytes(60))


BIND = b"\5\0\x0b\3\x10\0\0\0\x48\0\0\0\1\0\0\0" + bytes(56)
CALL = BIND.replace(b"\x0b", b"\0", 1)
NEGOTIATE_1 = smb1(0x72, bytes(40))
NEGOTIATE = smb2(0, bytes(40))


def write_1(data: bytes) -> bytes:
    return smb1(0x2F, b"\x0e" + bytes(22) + b"\x40\0" + bytes(7) + data)


def transaction_1(data: bytes) -> bytes:
    return smb1(0x25, b"\x10" + bytes(24) + b"\x54\0" + bytes(25) + data)


def write(data: bytes) -> bytes:
    return smb2(9, b"\x31\0\x70\0" + bytes(44) + data)


def ioctl(data: bytes) -> bytes:
    return smb2(11, b"\x39\0\0\0\x17\xc0\x11\0" + bytes(16) + b"\x78\0\0\0" + bytes(28) + data)


def test_a_bind_in_a_named_pipe_is_where_dcerpc_begins(converse: Any) -> None:
    for chunk in (None, 1, 50):
        for form in (write_1, transaction_1, write, ioctl):
            conversation = Smb()
            before = SESSION + NEGOTIATE_1 + form(CALL)
            script = [(UP, before), (DOWN, GRANTED + negotiated(0x0311)), (UP, form(BIND))]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert conversation.inner == "dcerpc"
            assert bytes(talk.moved[UP]) == before
            assert conversation.details().dialect == "3.1.1"


@pytest.mark.parametrize("chunk", [None, 1, 50])
def test_files_are_not_looked_into_for_long(converse: Any, chunk: int | None) -> None:
    conversation = Smb()
    messages = NEGOTIATE + write(b"\5\0\x0c" + bytes(1500)) * (MAX_LOOKED_INTO - 2)
    converse(conversation, [(UP, messages)], chunk=chunk)
    assert conversation.up is not FORWARD_ALL
    talk = converse(conversation, [(UP, NEGOTIATE + write(BIND))], chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.inner is None
    assert not talk.kept[UP]


@pytest.mark.parametrize(
    ("answer", "dialect"),
    [
        (smb1(0x72, bytes(40)), "1"),
        (negotiated(0x0210), "2.1"),
        (negotiated(0x02FF) + negotiated(0x0302), "3.0.2"),
        (negotiated(0x02FF), None),
        (smb2(1, b"\0\0\0\0\x10\2"), None),
        (packet(b"\xfdSMB" + bytes(60)), None),
        (packet(b"\xff"), None),
        (GRANTED, None),
    ],
)
def test_the_servers_answer_tells_the_dialect(
    converse: Any, answer: bytes, dialect: str | None
) -> None:
    conversation = Smb()
    converse(conversation, [(UP, NEGOTIATE_1), (DOWN, answer)])
    assert conversation.details().dialect == dialect
    assert conversation.details_ready is (dialect is not None)


@pytest.mark.parametrize("message", [b"", b"\xffSMB", b"\xfeSMB", b"\xfeSMB" + bytes(8) + b"\x09"])
def test_a_message_that_is_cut_short_is_passed_over(converse: Any, message: bytes) -> None:
    conversation = Smb()
    talk = converse(conversation, [(UP, packet(message)), (DOWN, packet(message))])
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]
    assert conversation.inner is None


def test_what_is_no_packet_is_an_error(converse: Any) -> None:
    with pytest.raises(ProtocolError):
        converse(Smb(), [(UP, NEGOTIATE), (UP, b"hello")])
