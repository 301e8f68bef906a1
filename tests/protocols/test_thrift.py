"""Thrift: a strict message, framed or not."""

from __future__ import annotations

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.thrift import PROTOCOL

MATCH, NEED_MORE, REJECT = Verdict.MATCH, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in (PROTOCOL,) if row.detect}

CASES = [
    ("thrift", b"\x80\1\0\1\0\0\0\4pin", b"", NEED_MORE),
    ("thrift", b"\x80\1\0\1\0\0\0\4ping", b"", MATCH),
    ("thrift", b"\0\0\0\x11\x80\1\0\1\0\0\0\4ping", b"", MATCH),
    ("thrift", b"\0\0\0\x0c\x80", b"", REJECT),  # a frame too small for it
    ("thrift", b"\x80\1\0\5", b"", REJECT),
    ("thrift", b"\x80\1\0\1\0\0\0\0", b"", REJECT),
    ("thrift", b"\x80\1\0\1\0\0\0\4p\xff", b"", REJECT),
]


@pytest.mark.parametrize(("name", "up", "down", "verdict"), CASES)
def test_what_an_opening_is_worth(name: str, up: bytes, down: bytes, verdict: Verdict) -> None:
    assert DETECT[name](Opening(up=up, down=down)) is verdict
