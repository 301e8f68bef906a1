"""X11, adb, Zabbix and ident."""

from __future__ import annotations

import pytest

from mitml4.protocols.administration import PROTOCOLS
from mitml4.protocols.conversation import Opening, Verdict

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

CNXN = b"CNXN\1\0\0\1\0\0\4\0\7\0\0\0\x32\2\0\0\xbc\xb1\xa7\xb1"

CASES = [
    ("x11", b"\x6c\0\x0b\0\0\0\x12\0\x10\0", b"", MATCH),
    ("x11", b"\x42\0\0\x0b\0\0\0\x12\0", b"", NEED_MORE),
    ("x11", b"\x42\0\x0b\0", b"", REJECT),  # the other byte order's version
    ("x11", b"\x6c\0\x0a", b"", REJECT),
    ("x11", b"ls -l\n", b"", REJECT),
    ("adb", CNXN[:-1], b"", NEED_MORE),
    ("adb", CNXN, b"", MATCH),
    ("adb", CNXN[:-1] + b"\xb0", b"", REJECT),
    ("adb", b"CONNECT x:1 HTTP/1.1", b"", REJECT),
    ("adb", b"001chost:forward", b"", MATCH),
    ("adb", b"001cgit-upload-pack", b"", REJECT),
    ("zabbix", b"ZBXD\1", b"", MATCH),
    ("zabbix", b"ZBXD\2", b"", REJECT),
    ("ident", b"6193, 23\r\n", b"", LIKELY),
    ("ident", b"6193,23\n", b"6193 , 23 : ERROR :", MATCH),
    ("ident", b"6193, 23\r\n", b"6193, 24 :", NEED_MORE),
    ("ident", b"6193, 23\r\nx", b"6193, 24 :", REJECT),
    ("ident", b"6193\r\n", b"", REJECT),
    ("ident", b"6193, 65536\r\n", b"", REJECT),
    ("ident", b"220 hi", b"", REJECT),
]


@pytest.mark.parametrize(("name", "up", "down", "verdict"), CASES)
def test_what_an_opening_is_worth(name: str, up: bytes, down: bytes, verdict: Verdict) -> None:
    assert DETECT[name](Opening(up=up, down=down)) is verdict
