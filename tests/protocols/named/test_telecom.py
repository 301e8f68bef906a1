"""Diameter, SMPP and STUN: lengths and flags that hold together."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.telecom import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

CER = bytes.fromhex("01000074c00001010000000012345678abcdef01000001084000001a")
BIND = b"\0\0\0\x23\0\0\0\2\0\0\0\0\0\0\0\1me\0secret\0SMPP\0\x34\0\0\0"

CASES = [
    ("diameter", CER[:-1], b"", NEED_MORE),
    ("diameter", CER, b"", MATCH),
    ("diameter", CER[:3] + b"\x75", b"", REJECT),  # not padded
    ("diameter", CER[:4] + b"\xc1", b"", REJECT),  # a reserved flag
    ("diameter", CER[:4] + b"\xc0\0\1\0", b"", REJECT),  # no such command
    ("diameter", CER[:-3] + b"\0\0\x61", b"", REJECT),  # an AVP longer than the message
    ("diameter", CER[:-4] + b"\x80", b"", REJECT),  # a vendor's
    ("diameter", CER[:20] + b"\0\0\0\x08", b"", REJECT),  # RADIUS's
    ("diameter", b"", CER, LIKELY),
    ("smpp", BIND[:-1], b"", NEED_MORE),
    ("smpp", BIND, b"", MATCH),
    ("smpp", BIND[:7] + b"\3", b"", REJECT),  # no bind
    ("smpp", BIND[:8] + b"\0\0\0\1", b"", REJECT),  # a status in a request
    ("smpp", BIND[:12] + b"\0\0\0\0", b"", REJECT),  # sequences begin with 1
    ("smpp", BIND[:16] + b"m\xff", b"", REJECT),
    ("smpp", BIND[:-4] + b"\x60", b"", REJECT),
    ("smpp", b"\0\0\0\x24" + BIND[4:], b"", REJECT),  # one byte is left
    ("smpp", b"\0\0\0\x22" + BIND[4:], b"", REJECT),  # one byte is missing
    ("stun", b"\0\3\0\x08\x21\x12\xa4", b"", NEED_MORE),
    ("stun", b"\0\3\0\x08\x21\x12\xa4\x42", b"", MATCH),
    ("stun", b"\0\3\0\x09\x21", b"", REJECT),
    ("stun", b"\0\x1c\0\3\0\x08\x21\x12\xa4\x42", b"", MATCH),  # framed
    ("stun", b"\0\x1d\0\3\0\x08\x21\x12\xa4\x42", b"", REJECT),
    ("stun", b"\0\x1c\0\3\0\x08\x21\x12\xa4\x43", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict
