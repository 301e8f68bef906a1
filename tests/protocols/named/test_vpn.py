"""OpenVPN and PPTP: what each protection leaves to be seen of a hard reset."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.vpn import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

PLAIN = b"\0\x0e\x38" + b"session." + bytes(5)
SIGNED = b"\0\x2a\x38" + b"session." + bytes(range(20)) + b"\0\0\0\1time" + bytes(5)
ENCRYPTED = b"\0\x36\x38" + b"session." + b"\0\0\0\1time" + bytes(range(37))
WITH_KEY = b"\1\x61\x50" + b"session." + b"\x0f\0\0\1time" + bytes(range(37))
ANSWER = b"\0\x1a\x40" + b"another." + b"\1\0\0\0\0" + b"session." + bytes(4)

CASES = [
    ("openvpn", PLAIN[:-1], b"", NEED_MORE),
    ("openvpn", PLAIN, b"", MATCH),
    ("openvpn", PLAIN[:-1] + b"\1", b"", REJECT),  # not its first packet
    ("openvpn", b"\0\x0e\x40", b"", REJECT),  # a server's
    ("openvpn", b"\0\x0e\x39", b"", REJECT),  # another key
    ("openvpn", SIGNED[:-1], b"", NEED_MORE),
    ("openvpn", SIGNED, b"", MATCH),
    ("openvpn", SIGNED[:-1] + b"\1", b"", REJECT),
    ("openvpn", SIGNED.replace(b"\1time", b"\2time"), b"", REJECT),
    ("openvpn", b"\0\x2b\x38", b"", REJECT),  # no digest is so long
    ("openvpn", ENCRYPTED[:15], b"", MATCH),
    ("openvpn", ENCRYPTED, ANSWER, MATCH),
    ("openvpn", ENCRYPTED.replace(b"\1time", b"\2time"), b"", REJECT),
    ("openvpn", WITH_KEY[:15], b"", MATCH),
    ("openvpn", b"\1\x57\x50" + WITH_KEY[3:], b"", REJECT),  # no key is so short
    ("openvpn", b"", b"\1\x61\x40" + WITH_KEY[3:], REJECT),  # a server brings none
    ("openvpn", b"", ANSWER[:-1], NEED_MORE),
    ("openvpn", b"", ANSWER, LIKELY),  # a capture of the replies
    ("openvpn", b"", ANSWER[:-1] + b"\1", REJECT),
    ("openvpn", b"", PLAIN, REJECT),
    ("pptp", b"\0\x9c\0\1\x1a\x2b\x3c\x4d", b"", MATCH),
    ("pptp", b"\0\x9c\0\2", b"", REJECT),
    ("pptp", b"\0\x0b", b"", REJECT),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        ended = not up and verdict is REJECT  # until then it may be an answer
        opening = Opening(up=up, down=down, up_ended=ended)
        assert DETECT[name](opening) is verdict
