"""LDAP: messages by their lengths, and the one after which TLS begins."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    Opening,
    Verdict,
)
from mitml4.protocols.ldap import MAX_MESSAGES, Ldap, detect

UP, DOWN = Direction.UP, Direction.DOWN


def element(tag: int, body: bytes, *, long: bool = False) -> bytes:
    size = len(body)
    if long:
        return bytes([tag, 0x84]) + size.to_bytes(4, "big") + body
    if size < 0x80:
        return bytes([tag, size]) + body
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + body


def message(
    number: int, tag: int, body: bytes, controls: bytes = b"", *, long: bool = False
) -> bytes:
    operation = element(tag, body, long=long)
    return element(0x30, element(2, bytes([number])) + operation + controls, long=long)


def bind(
    dn: bytes, authentication: bytes = element(0x80, b"secret"), *, long: bool = False
) -> bytes:
    return message(1, 0x60, b"\x02\x01\x03" + element(4, dn) + authentication, long=long)


OID = element(0x80, b"1.3.6.1.4.1.1466.20037")
START_TLS = message(2, 0x77, OID)
READY = message(2, 0x78, b"\x0a\x01\x00\x04\x00\x04\x00")
NO = message(2, 0x78, b"\x0a\x01\x34\x04\x00\x04\x00")
BIND = bind(b"cn=admin,dc=example")
ANONYMOUS = bind(b"", b"\x80\x00")
WELCOME = message(1, 0x61, b"\x0a\x01\x00\x04\x00\x04\x00")
SEARCH = message(1, 0x63, b"\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00")
ENTRY = message(1, 0x64, b"\x04\x00" + element(0x30, b"x" * 300))
DONE = message(1, 0x65, b"\x0a\x01\x00\x04\x00\x04\x00")
HELLO = b"\x16\x03\x01\x02\x00"


def test_tls_begins_behind_the_answer(converse: Any) -> None:
    for chunk in (None, 1, 7):
        for question, answer in (
            (START_TLS, READY),
            (message(2, 0x77, OID, long=True), message(2, 0x78, READY[7:], long=True)),
            (message(2, 0x77, OID, element(0xA0, b"\x30\x00")), READY),
            (START_TLS, message(2, 0x78, b"\x0a\x01\x00\x04\x00\x04\x00\x8a" + OID[1:])),
        ):
            for before in (
                [],
                [(UP, SEARCH), (DOWN, ENTRY + ENTRY + DONE)],
                [(UP, ANONYMOUS), (DOWN, WELCOME)],
                [(UP, START_TLS), (DOWN, NO)],
                [(DOWN, message(0, 0x78, b"\x0a\x01\x00\x04\x00\x04\x00"))],
            ):
                conversation = Ldap()
                script = [*before, (UP, question + HELLO), (DOWN, answer + b"\x16")]
                talk = converse(conversation, script, chunk=chunk)
                assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
                assert (talk.kept[UP], talk.kept[DOWN]) == (HELLO, b"\x16")
                assert conversation.details_ready
                assert conversation.details().upgraded


@pytest.mark.parametrize("chunk", [None, 1])
def test_the_client_waits_for_its_answer_and_no_other(converse: Any, chunk: int | None) -> None:
    conversation = Ldap()
    talk = converse(
        conversation, [(UP, SEARCH + START_TLS + HELLO), (DOWN, ENTRY + DONE)], chunk=chunk
    )
    assert conversation.directive(UP) is PAUSE
    assert talk.kept[UP] == HELLO
    converse(conversation, [(DOWN, NO)])
    assert conversation.directive(UP) is PEEK


def test_a_bind_tells_who_and_how_and_no_secret(converse: Any) -> None:
    for chunk in (None, 1, 7):
        for request_bytes, dn, mechanism in (
            (BIND, b"cn=admin,dc=example", b"simple"),
            (bind(b"User1", element(0x8A, b"NTLMSSP\x00secret")), b"User1", b"sicily"),
            (
                bind(b"", element(0xA3, element(4, b"SCRAM-SHA-512") + element(4, b"secret"))),
                b"",
                b"SCRAM-SHA-512",
            ),
            (
                bind(b"x", element(0xA3, element(4, b"GSSAPI") + element(4, b"secret" * 9000))),
                b"x",
                b"GSSAPI",
            ),
            (bind(b"a" * 200, long=True), b"a" * 200, b"simple"),
        ):
            conversation = Ldap()
            talk = converse(
                conversation, [(UP, request_bytes), (DOWN, WELCOME), (UP, SEARCH)], chunk=chunk
            )
            assert conversation.details_ready
            details = conversation.details()
            assert (details.bind_dn, details.mechanism, details.upgraded) == (dn, mechanism, False)
            assert "secret" not in repr(conversation)
            assert talk.moved[UP] == request_bytes + SEARCH


@pytest.mark.parametrize("chunk", [None, 1])
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_wrapped_messages_pass(converse: Any, direction: Direction, chunk: int | None) -> None:
    conversation = Ldap()
    wrapped = b"\x00\x00\x00\x10" + b"0123456789abcdef"
    script = [(UP, BIND), (DOWN, WELCOME), (direction, wrapped), (direction.other, b"any")]
    talk = converse(conversation, script, chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert not talk.kept[UP]
    assert not talk.kept[DOWN]


def test_a_search_alone_may_still_be_followed_by_a_question(converse: Any) -> None:
    conversation = Ldap()
    converse(conversation, [(UP, SEARCH), (DOWN, DONE)])
    assert not conversation.details_ready
    converse(conversation, [(UP, SEARCH)])
    assert conversation.details_ready


def test_after_many_messages_nobody_asks_any_more(converse: Any) -> None:
    conversation = Ldap()
    converse(conversation, [(UP, SEARCH), (DOWN, ENTRY * MAX_MESSAGES)])
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details_ready


@pytest.mark.parametrize(
    "script",
    [
        [(UP, b"\x30\x80")],
        [(UP, b"\x30\x0c\x02\x01\x01\x60\x20\x02\x01\x03")],
        [(UP, SEARCH + b"\x30\x05\x02\x01\x01\x62\x00")],
        [(UP, message(1, 0x60, b"\x02\x01\x03\x04\x50short"))],
        [(UP, bind(b"x" * 5000))],
        [(UP, START_TLS), (DOWN, message(2, 0x78, b"\x0a\x01\x00" + bytes(5000)))],
    ],
)
def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any, script: Any) -> None:
    with pytest.raises(ProtocolError, match="ldap"):
        converse(Ldap(), script)


def test_detection_by_the_first_message() -> None:
    for up, verdict in (
        (b"", Verdict.NEED_MORE),
        (b"\x30", Verdict.NEED_MORE),
        (BIND[:8], Verdict.NEED_MORE),
        (BIND[:9], Verdict.MATCH),
        (b"\x30\x19\x02\x01\x01\x60\x03\x02\xde", Verdict.REJECT),
        (bind(b"cn=admin", long=True), Verdict.MATCH),
        (SEARCH, Verdict.MATCH),
        (START_TLS[:8], Verdict.MATCH),
        (b"\x30\x05\x02\x01\x03\x42\x00", Verdict.MATCH),
        (b"\x30\x06\x02\x01\x06\x50\x01\x05", Verdict.MATCH),
        (b"\x30\x06\x02\x01\x03\x42\x01\x00", Verdict.REJECT),
        (b"\x30\x05\x02\x01\x03\x50\x00", Verdict.REJECT),
        (b"\x30\x82\x01\x6e\x02\x01\x05\x50\x01\x05\x04", Verdict.REJECT),  # some DER
        (b"\x30\x08\x02\x01\x03\x50\x01\x05\xa0\x00", Verdict.MATCH),
        (b"\x30\x0c\x02\x01\x01\x60\x08", Verdict.REJECT),
        (b"\x30\x0c\x02\x01\x01\x60\x07\x04", Verdict.REJECT),
        (b"\x30\x29\x02\x01\x00\x04\x06public", Verdict.REJECT),  # SNMP
        (b"\x30\x82\x01\x0a\x02\x82\x01", Verdict.REJECT),  # an RSA key
        (b"\x30\x37\xa0\x03\x02\x01\x06", Verdict.REJECT),  # CredSSP
        (b"\x30\x31\x30\x32", Verdict.REJECT),
        (message(0, 0x78, b"\x0a\x01\x34\x04\x00\x04\x00"), Verdict.MATCH),
    ):
        assert detect(Opening(up=up)) is verdict


@pytest.mark.parametrize(
    ("down", "up_ended", "verdict"),
    [
        (DONE, False, Verdict.LIKELY),
        (DONE, True, Verdict.MATCH),
        (DONE[:6], True, Verdict.NEED_MORE),
        (SEARCH, False, Verdict.REJECT),
    ],
)
def test_an_answer_alone_is_likely(down: bytes, up_ended: bool, verdict: Verdict) -> None:
    assert detect(Opening(down=down, up_ended=up_ended)) is verdict
