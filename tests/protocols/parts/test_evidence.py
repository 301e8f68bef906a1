"""How a rule becomes a detector."""

from __future__ import annotations

import pytest

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.parts.evidence import Rule, either, request_response, single_message
from mitml4.protocols.parts.fields import Reader, Short

MATCH, LIKELY, NEED_MORE, REJECT = (
    Verdict.MATCH,
    Verdict.LIKELY,
    Verdict.NEED_MORE,
    Verdict.REJECT,
)


def word(text: bytes) -> Rule:
    return lambda reader: reader.one_of(text)


OF_CLIENT = single_message(word(b"hi"))
OF_EITHER = single_message(word(b"hi"), word(b"yo"))
WEAK = request_response(word(b"hi"), lambda up: word(up[:2].upper()))


def test_proof_is_the_clients_and_a_servers_until_the_client_speaks() -> None:
    for opening, of_client, of_either in (
        (Opening(), NEED_MORE, NEED_MORE),
        (Opening(up=b"h"), NEED_MORE, NEED_MORE),
        (Opening(up=b"hi"), MATCH, MATCH),
        (Opening(up=b"ho"), REJECT, REJECT),
        (Opening(up=b"hi", down=b"anything"), MATCH, MATCH),
        (Opening(up=b"h", up_ended=True), REJECT, REJECT),
        (Opening(down=b"y"), REJECT, NEED_MORE),
        (Opening(down=b"yo"), REJECT, LIKELY),
        (Opening(down=b"no"), REJECT, REJECT),
        (Opening(down=b"yo", up_ended=True), REJECT, MATCH),
        (Opening(up=b"ho", down=b"yo"), REJECT, REJECT),
    ):
        assert (OF_CLIENT(opening), OF_EITHER(opening)) == (of_client, of_either)


def test_a_weak_rule_wants_an_answer_or_a_second_unit() -> None:
    for up, down, verdict in (
        (b"", b"", NEED_MORE),
        (b"", b"H", REJECT),
        (b"h", b"xx", NEED_MORE),
        (b"hi", b"", LIKELY),
        (b"hi", b"H", LIKELY),
        (b"hi", b"HI", MATCH),
        (b"hihi", b"", MATCH),
        (b"hihi", b"xx", MATCH),
        (b"hix", b"HI", MATCH),
        (b"hix", b"H", NEED_MORE),
        (b"hih", b"xx", NEED_MORE),
        (b"hix", b"xx", REJECT),
        (b"ho", b"HI", REJECT),
    ):
        assert WEAK(Opening(up=up, down=down)) is verdict


def test_either_takes_the_first_way_that_fits_and_waits_for_those_that_may() -> None:
    rule = either(word(b"abc"), word(b"ax"))
    reader = Reader(b"axe")
    rule(reader)
    assert reader.at == 2
    with pytest.raises(Short):
        rule(Reader(b"a"))
    with pytest.raises(ProtocolError):
        rule(Reader(b"b"))
