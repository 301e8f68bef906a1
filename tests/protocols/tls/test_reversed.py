"""TLS that the accepting side begins, behind text."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.registry import detect as detect_any
from mitml4.protocols.tls.reversed import PROTOCOL, detect

ASKED = b"\x16\x03\x01\x00\xf0\x01"
ANSWERED = b"\x16\x03\x03\x00\x5a\x02"
MATCHING = (
    Opening(up=b"RETR 7\n", down=ASKED),
    Opening(up=b"hello\r\nthere\r\n", down=ASKED + b"\x00\x00\xec"),
    Opening(down=b"welcome\r\n" + ASKED),
    Opening(down="grüß dich\n".encode() + ASKED),
    Opening(down=b"READY" + ASKED),
    Opening(up=b"a line\r\n" * 20, down=ASKED),
    Opening(up=b"hi\n" + ANSWERED, down=b"welcome\r\n" + ASKED),
)


def pieces(whole: Opening) -> Iterator[Opening]:
    """Every beginning of both sides."""
    for up in range(len(whole.up) + 1):
        for down in range(len(whole.down) + 1):
            yield Opening(up=whole.up[:up], down=whole.down[:down])


@pytest.mark.parametrize("whole", MATCHING)
def test_text_and_a_hello_of_the_accepting_side_match(whole: Opening) -> None:
    assert detect(whole) is Verdict.MATCH
    assert {detect(piece) for piece in pieces(whole)} <= {Verdict.MATCH, Verdict.NEED_MORE}
    assert detect_any(whole).match is PROTOCOL


@pytest.mark.parametrize(
    "opening",
    [
        Opening(up=ASKED),
        Opening(up=ANSWERED, down=ASKED),
        Opening(up=b"hello\r\n", down=ANSWERED),
        Opening(up=b"hello\r\n", down=b"\x17\x03\x03"),
        Opening(up=b"\0hello\r\n", down=ASKED),
        Opening(up=b"x" * 4097, down=ASKED),
        Opening(down=b"\xf5\xe1 is no UTF-8\n" + ASKED),
    ],
)
def test_everything_else_is_rejected(opening: Opening) -> None:
    assert detect(opening) is Verdict.REJECT
