"""OpenVPN and PPTP: a hard reset needs its acknowledgement unless it is a plain one."""

from __future__ import annotations

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.vpn import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

WRAPPED = b"\0\x36\x38" + bytes(range(53))

CASES = [
    ("openvpn", b"\0\x0e\x38sessions\0\0\0\0", b"", NEED_MORE),
    ("openvpn", b"\0\x0e\x38sessions\0\0\0\0\0", b"", MATCH),
    ("openvpn", b"\0\x0e\x38sessions\0\0\0\0\1", b"", REJECT),  # not its first packet
    ("openvpn", b"\0\x0e\x40", b"", REJECT),  # a server's
    ("openvpn", WRAPPED[:-1], b"", NEED_MORE),
    ("openvpn", WRAPPED, b"", LIKELY),
    ("openvpn", WRAPPED, b"\0\x42\x40", MATCH),
    ("openvpn", WRAPPED + b"\0\x1a\x28", b"\0\x42\x40", MATCH),  # and goes on
    ("openvpn", WRAPPED + b"\0\x1a\x28", b"\0\x43", REJECT),
    ("openvpn", b"\0\x35\x38", b"", REJECT),  # no digest is so long
    ("pptp", b"\0\x9c\0\1\x1a\x2b\x3c\x4d", b"", MATCH),
    ("pptp", b"\0\x9c\0\2", b"", REJECT),
    ("pptp", b"\0\x0b", b"", REJECT),
]


@pytest.mark.parametrize(("name", "up", "down", "verdict"), CASES)
def test_what_an_opening_is_worth(name: str, up: bytes, down: bytes, verdict: Verdict) -> None:
    assert DETECT[name](Opening(up=up, down=down)) is verdict
