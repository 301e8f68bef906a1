"""XMPP: tags at their depth, and the point at which TLS begins."""

from __future__ import annotations

from typing import Any

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import FORWARD_ALL, PEEK, SWITCH, Direction, Opening, Verdict
from mitml4.protocols.xmpp import MAX_TAG, Xmpp, XmppDetails, detect

UP, DOWN = Direction.UP, Direction.DOWN

ASKED = (
    b"<?xml version='1.0'?>\n<stream:stream to='a.example' xmlns='jabber:client'"
    b" xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
ANSWERED = b"<?xml version='1.0'?><stream:stream id='1' from='b.example' version=\"1.0\">"
STREAMS = [
    (UP, ASKED),
    (DOWN, ANSWERED),
    (DOWN, b"<stream:features><starttls xmlns='urn'><required/></starttls></stream:features>"),
]
STARTTLS = (UP, b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
PROCEED = (DOWN, b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")

UPGRADED: dict[str, list[tuple[Direction, bytes]]] = {
    "usual": [*STREAMS, STARTTLS, PROCEED],
    "end tags of their own": [
        *STREAMS,
        (UP, b"<starttls xmlns='urn'></starttls>"),
        (DOWN, b"\n<proceed xmlns='urn'>\n</proceed>"),
    ],
    "refused once": [*STREAMS, STARTTLS, (DOWN, b"<failure><why/></failure>"), STARTTLS, PROCEED],
    "login refused": [
        *STREAMS,
        (UP, b"<auth mechanism='PLAIN'>AGEAYg==</auth>"),
        (DOWN, b"<failure><encryption-required/></failure>"),
        STARTTLS,
        PROCEED,
    ],
    "answers that are none": [
        *STREAMS,
        STARTTLS,
        (DOWN, b"<x><proceed/></x><!-- <proceed/> --><y><![CDATA[</y><proceed/>]]></y>"),
        PROCEED,
    ],
    "questions that are none": [
        *STREAMS,
        (UP, b"<x a='&lt;' b=\"'>\"/><x><starttls/></x> <y>starttls</y>"),
        STARTTLS,
        PROCEED,
    ],
}


def test_tls_begins_right_behind_proceed(converse: Any) -> None:
    for chunk in (None, 1, 3):
        for name in UPGRADED:
            conversation = Xmpp()
            script = [*UPGRADED[name], (UP, b"\x16\x03\n"), (DOWN, b"\x16\x03\n")]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (SWITCH, SWITCH)
            assert (talk.kept[UP], talk.kept[DOWN]) == (b"\x16\x03\n", b"\x16\x03\n")
            assert conversation.details_ready
            details = conversation.details()
            assert details.upgraded
            assert (details.host, details.server) == (b"a.example", b"b.example")
            assert details.greeting == ANSWERED[21:]


def test_behind_a_login_or_a_stanza_all_passes(converse: Any) -> None:
    for chunk in (None, 1):
        for last in (
            (DOWN, b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
            (DOWN, b"<compressed/>"),
            (UP, b"<iq type='get'><query xmlns='jabber:iq:auth'/></iq>"),
            (UP, b"<message><body>hi</body></message>"),
            (UP, b"<db:result from='a'>x</db:result>"),
        ):
            conversation = Xmpp()
            script = [
                *STREAMS,
                last,
                (UP, ASKED),
                STARTTLS,
                (DOWN, b"\xff<"),
                (UP, b"<" * MAX_TAG * 2),
            ]
            talk = converse(conversation, script, chunk=chunk)
            assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
            assert not talk.kept[UP]
            assert conversation.details_ready
            assert not conversation.details().upgraded


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_stanza_without_a_stream_passes(converse: Any, chunk: int | None) -> None:
    conversation = Xmpp()
    converse(conversation, [(UP, b"<iq type='get' to='a.example'/></stream:stream>")], chunk=chunk)
    assert (conversation.up, conversation.down) == (FORWARD_ALL, FORWARD_ALL)
    assert conversation.details() == XmppDetails()


@pytest.mark.parametrize("chunk", [None, 1])
def test_an_answer_right_behind_a_refusal_is_that_to_the_next_request(
    converse: Any, chunk: int | None
) -> None:
    script = [*STREAMS, (UP, STARTTLS[1] * 2), (DOWN, b"<failure/>" + PROCEED[1])]
    conversation = Xmpp()
    converse(conversation, script, chunk=chunk)
    assert conversation.details().upgraded


def test_a_proceed_that_nobody_asked_for_is_no_answer(converse: Any) -> None:
    conversation = Xmpp()
    converse(conversation, [*STREAMS, PROCEED])
    assert conversation.up is PEEK


def test_text_is_not_held_back(converse: Any) -> None:
    conversation = Xmpp()
    talk = converse(conversation, [(UP, ASKED), (UP, b" " * 3 * MAX_TAG), (UP, b" <start")])
    assert conversation.up is PEEK
    assert talk.kept[UP] == b"<start"


def test_bytes_that_break_the_protocol_raise_protocol_error(converse: Any) -> None:
    for chunk in (None, 1000):
        for data in (
            b"<a " + b"x" * MAX_TAG + b">",
            b"<a b='" + b"x" * MAX_TAG,
            b"<!-- " + b"-" * MAX_TAG,
            b"<!DOCTYPE " + b"x" * MAX_TAG,
            b"</stream:stream></stream:stream>",
        ):
            with pytest.raises(ProtocolError):
                converse(Xmpp(), [(UP, ASKED), (UP, data)], chunk=chunk)


def test_detection_by_the_stream_header() -> None:
    for data, verdict in (
        (ASKED, Verdict.MATCH),
        (ASKED[21:], Verdict.MATCH),
        (ASKED[:10], Verdict.NEED_MORE),
        (b"<?xml version='1.0'?>", Verdict.NEED_MORE),
        (b"<stream:stream to='jabber.org'", Verdict.NEED_MORE),
        (b"<stream:stream to='jabber.org'>", Verdict.REJECT),
        (b"<?xml version='1.0'?><html>", Verdict.REJECT),
        (b"<policy-file-request/>", Verdict.REJECT),
        (ASKED[21:].replace(b"stream:stream", b"s:stream"), Verdict.MATCH),
        (ASKED[21:].replace(b"stream:stream", b"stream"), Verdict.MATCH),
        (b"<iq type='set' id='purplea0fda' to='a.example'>", Verdict.MATCH),
        (b"<iq to='a.example' ty", Verdict.NEED_MORE),
        (b"<iq to='a.example'>", Verdict.REJECT),
        (b"<presence xml:lang='en' to='tom@a.example/x'>", Verdict.MATCH),
        (b"<message to='tom'>", Verdict.REJECT),
        (b"<stream:stream " + b"x" * 2100, Verdict.REJECT),
    ):
        assert detect(Opening(up=data)) is verdict
        alone = Verdict.LIKELY if verdict is Verdict.MATCH else verdict
        assert detect(Opening(down=data)) is alone
        assert detect(Opening(down=data, up_ended=True)) is verdict
