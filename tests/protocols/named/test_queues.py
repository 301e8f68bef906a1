"""OpenWire, Gearman, NSQ, Pulsar and beanstalkd."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.queues import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

CASES = [
    ("openwire", b"\0\0\1\x48\1ActiveMQ", b"", MATCH),
    ("openwire", b"\0\0\1\x48\1ActiveMX", b"", REJECT),
    ("openwire", b"", b"\0\0\1\x48\1ActiveMQ", LIKELY),
    ("gearman", b"\0REQ\0\0\0\x07\0\0\0\x0c", b"", MATCH),
    ("gearman", b"\0REQ\0\0\0\x2b", b"", REJECT),  # no such type
    ("nsq", b"  V2SUB a b\n", b"", MATCH),
    ("nsq", b"  V2", b"", NEED_MORE),
    ("nsq", b"  V1", b"", REJECT),
    ("pulsar", b"\0\0\0\x20\0\0\0\x1c\x08\2\x12", b"", MATCH),
    ("pulsar", b"\0\0\0\x20\0\0\0\x1d", b"", REJECT),  # lengths differ
    ("beanstalkd", b"put 0 0 60 5\r\n", b"", LIKELY),
    ("beanstalkd", b"put 0 0 60 5\r\n", b"INSERTED 7\r\n", MATCH),
    ("beanstalkd", b"put a b c d\r\n", b"", REJECT),
    ("beanstalkd", b"use mail\r\n", b"250 OK\r\n", NEED_MORE),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict, (name, up)
