"""AJP, JDWP and RMI."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.java import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

CASES = [
    ("ajp13", b"\x12\x34\0\1\x0a", b"", MATCH),
    ("ajp13", b"\x12\x34\0\2\x0a", b"", REJECT),
    ("ajp13", b"\x12\x34\3\x36\2", b"", NEED_MORE),
    ("ajp13", b"\x12\x34\3\x36\2\x1b", b"", MATCH),
    ("ajp13", b"\x12\x34\3\x36\2\x1c", b"", REJECT),  # no such method
    ("ajp13", b"\x12\x34\3\x36\4", b"", REJECT),  # a container's
    ("jdwp", b"JDWP-Handshake", b"", MATCH),
    ("jdwp", b"", b"JDWP-Handshake", LIKELY),
    ("jdwp", b"JDWP-Handshook", b"", REJECT),
    ("java-rmi", b"JRMI\0\2\x4d", b"", MATCH),
    ("java-rmi", b"JRMI\0\3", b"", REJECT),
    ("java-rmi", b"JRMI\0\2\x4e", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict
