"""BitTorrent, Gnutella and Bitcoin."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.peer_to_peer import PROTOCOLS

MATCH, NEED_MORE, REJECT = Verdict.MATCH, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

CASES = [
    ("bittorrent", b"\x13BitTorrent protoco", b"", NEED_MORE),
    ("bittorrent", b"\x13BitTorrent protocol", b"", MATCH),
    ("bittorrent", b"\x13BitTorrent protocols"[:20] + b"x", b"", MATCH),
    ("bittorrent", b"\x13BitTorment", b"", REJECT),
    ("gnutella", b"GNUTELLA CONNECT/0.", b"", MATCH),
    ("gnutella", b"GNUTELLA/0.6 200 OK", b"", MATCH),
    ("gnutella", b"GNUTELLA CONNECTS", b"", REJECT),
    ("gnutella", b"GET ", b"", REJECT),
    ("bitcoin", b"\xf9\xbe\xb4\xd9version\0\0\0\0\0\x66\0\0", b"", NEED_MORE),
    ("bitcoin", b"\xf9\xbe\xb4\xd9version\0\0\0\0\0\x66\0\0\0", b"", MATCH),
    ("bitcoin", b"\x0b\x11\x09\x07verack\0\0\0\0\0\0\0\0\0\0", b"", MATCH),
    ("bitcoin", b"\xf9\xbe\xb4\xd9ver\0sion\0\0\0\0", b"", REJECT),
    ("bitcoin", b"\xf9\xbe\xb4\xd9" + bytes(12), b"", REJECT),
    ("bitcoin", b"\xf9\xbe\xb4\xd8", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict
