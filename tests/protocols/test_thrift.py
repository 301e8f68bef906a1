"""Thrift: a strict or a compact message, framed or not."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.thrift import PROTOCOL

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in (PROTOCOL,) if row.detect}

CASES = [
    ("thrift", b"\x80\1\0\1\0\0\0\4pin", b"", NEED_MORE),
    ("thrift", b"\x80\1\0\1\0\0\0\4ping", b"", MATCH),
    ("thrift", b"\0\0\0\x11\x80\1\0\1\0\0\0\4ping", b"", MATCH),
    ("thrift", b"", b"\x80\1\0\2\0\0\0\4ping", LIKELY),  # a capture of the replies
    ("thrift", b"\0\0\0\x0b\x80\1\0\1\0\0\0\4pin", b"", REJECT),  # a frame too small for it
    ("thrift", b"\x80\1\0\5", b"", REJECT),
    ("thrift", b"\x80\1\0\1\0\0\0\0", b"", REJECT),
    ("thrift", b"\x80\1\0\1\0\0\0\4p\xff", b"", REJECT),
    ("thrift", b"\x82\x21\0\x0bgetUserNam", b"", NEED_MORE),
    ("thrift", b"\x82\x21\0\x0bgetUserName", b"", MATCH),
    ("thrift", b"\0\0\0\x10\x82\x21\0\x0bgetUserName", b"", MATCH),
    ("thrift", b"\x82\x41\xff\xff\xff\xff\x0f\4ping", b"", MATCH),  # the largest sequence
    ("thrift", b"\x82\x41\xff\xff\xff\xff\x1f", b"", REJECT),
    ("thrift", b"\x82\x22", b"", REJECT),  # another version
    ("thrift", b"\x82\xa1", b"", REJECT),  # no such type
    ("thrift", b"\x82\x21\1\3\1", b"", REJECT),  # a ClientHello of SSL 2
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict
