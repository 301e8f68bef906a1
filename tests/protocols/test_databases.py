"""Databases that are only named."""

from __future__ import annotations

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.databases import PROTOCOLS

MATCH, NEED_MORE, REJECT = Verdict.MATCH, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

ES = b"ES\0\0\0\x34\0\0\0\0\0\0\0\1\x08\0"
ZOOKEEPER = b"\0\0\0\x2d" + bytes(14) + b"\x75\x30" + bytes(11) + b"\x10"

CASES = [
    ("drda", b"\0\x89\xd0\x41\0\1\0\x83\x10", b"", NEED_MORE),
    ("drda", b"\0\x89\xd0\x41\0\1\0\x83\x10\x41", b"", MATCH),
    ("drda", b"\0\x89\xd0\x41\0\1\0\x84", b"", REJECT),  # lengths differ
    ("drda", b"\0\x89\xd0\x41\0\1\0\x83\x14", b"", REJECT),
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
    ("clickhouse", b"\0\x11ClickHouse client", b"", MATCH),
    ("clickhouse", b"\0\x11ClickHouse clien", b"", NEED_MORE),
    ("clickhouse", b"\0\x11Something", b"", REJECT),
    ("clickhouse", b"\0\x11ClickHouse\xff", b"", REJECT),
]


@pytest.mark.parametrize(("name", "up", "down", "verdict"), CASES)
def test_what_an_opening_is_worth(name: str, up: bytes, down: bytes, verdict: Verdict) -> None:
    assert DETECT[name](Opening(up=up, down=down)) is verdict
