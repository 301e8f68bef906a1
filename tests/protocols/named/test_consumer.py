"""Minecraft, Steam, TeamViewer, WhatsApp and Telegram."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.consumer import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

CASES = [
    ("minecraft", b"\x10\0\xfb\5\x09localhost\x63\xdd\1", b"", MATCH),
    ("minecraft", b"\x10\0\xfb\5\x09localhost\x63\xdd\4", b"", REJECT),  # no such state
    ("minecraft", b"\x11\0\xfb\5\x09localhost", b"", REJECT),  # lengths differ
    ("minecraft", b"\x0f\0\x2f\x09localhost\x63\xdd\2", b"", MATCH),  # an old version
    ("steam", b"\x10\1\0\0VT01", b"", MATCH),
    ("steam", b"\x10\1\0\0VT02", b"", REJECT),
    ("teamviewer", b"\x17\x24\x0a", b"", LIKELY),
    ("teamviewer", b"\x17\x24\x0a", b"\x17\x24\x11", MATCH),
    ("teamviewer", b"\x17\x24\x0a", b"\x16\3\1", NEED_MORE),
    ("whatsapp", b"WA\6\3\0\0\x24", b"", MATCH),
    ("whatsapp", b"\xed\0\1\0\0\2abWA\6\3\0\0\x24", b"", MATCH),
    ("whatsapp", b"WAIT", b"", REJECT),
    ("telegram", b"\xef\x0a" + bytes(8), b"", MATCH),
    ("telegram", b"\xef\x0a" + bytes(7) + b"\1", b"", REJECT),
    ("telegram", b"\xee\xee\xee\xee\x28\0\0\0", b"", MATCH),
    ("telegram", b"\xee\xee\xee\xee\x28\0\1\1", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict, (name, up)
