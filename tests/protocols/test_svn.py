"""Subversion: what svnserve and its clients begin with."""

from __future__ import annotations

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.svn import PROTOCOL

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT

# As Subversion 1.14 greets, and answers.
GREETING = b"( success ( 2 2 ( ) ( edit-pipeline svndiff1 accepts-svndiff2 absent-entries"
RESPONSE = b"( 2 ( edit-pipeline svndiff1 depth ) 20:svn://127.0.0.1/repo 10:SVN/1.14.2 ( ) ) "


def verdict(up: bytes = b"", down: bytes = b"", *, ended: bool = False) -> Verdict:
    assert PROTOCOL.detect is not None
    return PROTOCOL.detect(Opening(up=up, down=down, up_ended=ended))


def test_a_greeting_is_likely_until_the_client_has_spoken() -> None:
    assert verdict(down=GREETING) is LIKELY
    assert verdict(down=GREETING[:17]) is NEED_MORE
    assert verdict(down=GREETING, ended=True) is MATCH
    assert verdict(RESPONSE, GREETING) is MATCH


@pytest.mark.parametrize(
    ("up", "said"),
    [
        (RESPONSE, MATCH),
        (RESPONSE[:40], NEED_MORE),
        (b"( 2 ( ) 30:svn+ssh://a", MATCH),
        (b"( 2 ( ) 20:http://a", REJECT),
        (b"( hello )", REJECT),
        (b"(1)", REJECT),
        (b"FOO\r\n", REJECT),
    ],
)
def test_a_response_is_known_by_its_url(up: bytes, said: Verdict) -> None:
    assert verdict(up, GREETING) is said


@pytest.mark.parametrize("down", [b"( success ( ( ) ( ) ) )", b"( failure", b"(success", b"hello"])
def test_other_lists_are_no_greetings(down: bytes) -> None:
    assert verdict(down=down) is NEED_MORE
    assert verdict(down=down, ended=True) is REJECT
