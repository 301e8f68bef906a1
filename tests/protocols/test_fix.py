"""FIX: the first fields in their order."""

from __future__ import annotations

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.fix import PROTOCOL

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in (PROTOCOL,) if row.detect}

CASES = [
    ("fix", b"8=FIX.4.2\x019=65\x0135", b"", NEED_MORE),
    ("fix", b"8=FIX.4.2\x019=65\x0135=", b"", MATCH),
    ("fix", b"8=FIXT.1.1\x019=65\x0135=", b"", MATCH),
    ("fix", b"", b"8=FIX.5.0SP2\x019=65\x0135=", LIKELY),
    ("fix", b"8=FIX.4.2\x0135=", b"", REJECT),
    ("fix", b"8=FIX.4.2|9=65", b"", REJECT),
]


@pytest.mark.parametrize(("name", "up", "down", "verdict"), CASES)
def test_what_an_opening_is_worth(name: str, up: bytes, down: bytes, verdict: Verdict) -> None:
    assert DETECT[name](Opening(up=up, down=down)) is verdict
