"""BGP and LDP: heads that are possible, and those that are not."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.routing import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

MARKER = b"\xff" * 16
LDP = b"\0\1\0\x20\x0a\0\1\1\0\0"

CASES = [
    ("bgp", MARKER + b"\0\x13", b"", NEED_MORE),
    ("bgp", MARKER + b"\0\x13\4", b"", MATCH),
    ("bgp", MARKER + b"\xff\xff\2", b"", MATCH),  # RFC 8654
    ("bgp", MARKER + b"\0\x12", b"", REJECT),
    ("bgp", MARKER + b"\0\x13\6", b"", REJECT),
    ("bgp", MARKER[:-1] + b"\xfe", b"", REJECT),
    ("bgp", b"", MARKER + b"\0\x13\4", LIKELY),
    ("bgp", b"", b"\xff\xfb", REJECT),  # Telnet
    ("ldp", LDP + b"\2\0\0\x16\0\0\0\1\5", b"", NEED_MORE),
    ("ldp", LDP + b"\2\0\0\x16\0\0\0\1\5\0", b"", MATCH),
    ("ldp", LDP + b"\2\0\0\x16\0\0\0\1\3", b"", REJECT),  # no session parameters
    ("ldp", LDP + b"\2\0\0\x17", b"", REJECT),  # a message longer than its PDU
    ("ldp", LDP + b"\2\1\0\4\0\0\0\1", b"", MATCH),  # keep-alive
    ("ldp", LDP + b"\2\1\0\5", b"", REJECT),
    ("ldp", LDP + b"\1\0", b"", REJECT),  # a hello
    ("ldp", b"\0\1\0\x20\0\0\0\0", b"", REJECT),  # from nobody
    ("ldp", b"\0\2", b"", REJECT),
    ("ldp", b"\0\1\x10\1", b"", REJECT),  # longer than 4096
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        ended = not up and verdict is REJECT  # until then it may be an answer
        opening = Opening(up=up, down=down, up_ended=ended)
        assert DETECT[name](opening) is verdict
