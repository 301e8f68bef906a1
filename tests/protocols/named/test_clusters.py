"""GIOP, OpenFlow, Ceph, neo4j, RethinkDB and HL7."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.clusters import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

HELLO = b"\4\0\0\x08\0\0\0\1"
CASES = [
    ("giop", b"GIOP\1\2\1\0", b"", MATCH),
    ("giop", b"GIOP\2", b"", REJECT),
    ("giop", b"GIOP\1\2\1\x08", b"", REJECT),  # no such message
    ("openflow", HELLO, b"", LIKELY),
    ("openflow", HELLO, b"\1" + HELLO[1:], MATCH),
    ("openflow", b"\3" + HELLO[1:], b"", REJECT),  # TPKT's
    ("openflow", HELLO, b"HTTP/1.1 400", NEED_MORE),
    ("ceph", b"ceph v2\n", b"", MATCH),
    ("ceph", b"ceph v3\n", b"", REJECT),
    ("ceph", b"", b"ceph v027", LIKELY),
    ("neo4j", b"\x60\x60\xb0\x17" + bytes(16), b"", MATCH),
    ("neo4j", b"\x60\x60\xb0\x17", b"", NEED_MORE),
    ("rethinkdb", b"\xc3\xbd\xc2\x34", b"", MATCH),
    ("rethinkdb", b"\xc3\xbd\xc2\x35", b"", REJECT),
    ("hl7", b"\x0bMSH|", b"", MATCH),
    ("hl7", b"\x0bMSX|", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict, (name, up)
