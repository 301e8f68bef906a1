"""Databases that are only named."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.databases import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

ES = b"ES\0\0\0\x34\0\0\0\0\0\0\0\1\x08\0"
ZOOKEEPER = b"\0\0\0\x2d" + bytes(14) + b"\x75\x30" + bytes(11) + b"\x10"

HELO = b"\x80\x1f\0\4" + bytes(4) + b"\0\0\0\x08" + bytes(4) + bytes(8) + b"core\0\6\0\7"
FRAMED = b"\x08\1\2\3\x08\0\0\1\0\0\0\x12" + bytes(12) + b"\x11\1" + bytes(8) + b"keyvalue"

CASES = [
    ("couchbase", HELO[:23], b"", NEED_MORE),
    ("couchbase", HELO, b"", MATCH),
    ("couchbase", HELO[:11] + b"\x09", b"", REJECT),  # half a feature
    ("couchbase", b"\x80\0\0\3", b"", REJECT),  # memcached
    ("couchbase", FRAMED, b"", MATCH),
    ("couchbase", FRAMED[:4] + b"\4", b"", REJECT),  # a set has eight bytes of extras
    ("couchbase", FRAMED[:24] + b"\x12", b"", REJECT),
    ("drda", b"\0\x89\xd0\x41\0\1\0\x83\x10", b"", NEED_MORE),
    ("drda", b"\0\x89\xd0\x41\0\1\0\x83\x10\x41", b"", MATCH),
    ("drda", b"\0\x89\xd0\x41\0\1\0\x84", b"", REJECT),  # lengths differ
    ("drda", b"\0\x89\xd0\x41\0\1\0\x83\x10\x43", b"", REJECT),
    ("drda", b"", b"\0\x89\xd0\x42\0\1\0\x83\x14\x43", LIKELY),  # a capture of the replies
    ("oracle-tns", b"\0\xc8\0\0\1\0\0\0\1\x3a\1", b"", NEED_MORE),
    ("oracle-tns", b"\0\xc8\0\0\1\0\0\0\1\x3a\1\x2c", b"", MATCH),
    ("oracle-tns", b"\0\xc8\0\0\1\0\0\0\1\x3a\1\x3b", b"", REJECT),  # its oldest is newer
    ("oracle-tns", b"\0\xc8\0\0\2", b"", REJECT),
    ("oracle-tns", b"\0\x21", b"", REJECT),
    ("elasticsearch", ES[:-1], b"", NEED_MORE),
    ("elasticsearch", ES, b"", MATCH),
    ("elasticsearch", ES[:-1] + b"\1", b"", REJECT),
    ("elasticsearch", b"ES\xff\xff\xff\xff", b"", MATCH),
    ("elasticsearch", b"ESMTP", b"", REJECT),
    ("zookeeper", ZOOKEEPER[:-1], b"", NEED_MORE),
    ("zookeeper", ZOOKEEPER, b"", MATCH),
    ("zookeeper", ZOOKEEPER[:-1] + b"\x11", b"", REJECT),
    ("zookeeper", b"\0\0\0\x2e", b"", REJECT),
    ("clickhouse", b"\0\x18ClickHouse python-driver\x14\x0a\xc4\xa9", b"", NEED_MORE),
    ("clickhouse", b"\0\x18ClickHouse python-driver\x14\x0a\xc4\xa9\3", b"", MATCH),
    ("clickhouse", b"\0\x10Golang SQLDriver\1\1\xb6\xa8\3", b"", MATCH),
    ("clickhouse", b"\0\x10Golang SQLDriver\1\1\xb6\xaf", b"", REJECT),  # revision 55222
    ("clickhouse", b"\0\x10Golang SQLDriver\1\1\x36", b"", REJECT),
    ("clickhouse", b"\0\x11ClickHouse\xff", b"", REJECT),
    ("clickhouse", b"", b"\0\x0aClickHouse\x14\3\xb7\xa8\3", LIKELY),  # the server's
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict
