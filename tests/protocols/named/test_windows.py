"""DCE/RPC and Kerberos: what is one, and what only looks like it."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.named.windows import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

AS_REQ = bytes.fromhex("000000eb6a81e83081e5a103020105a20302010a")
KRB_ERROR = bytes.fromhex("000001127e82010e3082010aa003020105a10302011e")

CASES = [
    ("dcerpc", b"\5\0\x0b\3\x10\0\0\0\x10\0\0\0\0\0\0", b"", NEED_MORE),
    ("dcerpc", b"\5\0\x0b\3\x10\0\0\0\x10\0\0\0\0\0\0\0", b"", MATCH),
    ("dcerpc", b"\5\0\x0b\3\0\0\0\0\0\x48\0\x10\0\0\0\0", b"", MATCH),  # big-endian
    ("dcerpc", b"\5\0\x0b\3\0\0\0\0\0\x0f", b"", REJECT),  # shorter than its head
    ("dcerpc", b"\5\0\x0b\3\x10\0\0\0\x48\0\x40\0", b"", REJECT),  # more proof than PDU
    ("dcerpc", b"\5\0\x0b\3\x20", b"", REJECT),
    ("dcerpc", b"\5\0\x01", b"", REJECT),
    ("dcerpc", b"\5\0\0\0", b"", REJECT),  # the middle of a request; and of many other things
    ("dcerpc", b"", b"\5\0\x0c\3\x10\0\0\0\x44\0\0\0\1\0\0\0", LIKELY),
    ("dcerpc", b"\5\1\0", b"", REJECT),  # SOCKS5
    ("kerberos", AS_REQ[:-1], b"", NEED_MORE),
    ("kerberos", AS_REQ, b"", MATCH),
    ("kerberos", AS_REQ.replace(b"\xeb\x6a", b"\xec\x6a"), b"", REJECT),  # lengths differ
    ("kerberos", AS_REQ.replace(b"\xe5", b"\xe4"), b"", REJECT),
    ("kerberos", AS_REQ[:-1] + b"\x0c", b"", REJECT),  # TGS-REQ's type
    ("kerberos", AS_REQ.replace(b"\x6a", b"\x60"), b"", REJECT),
    ("kerberos", KRB_ERROR, b"", MATCH),  # a capture of the replies
    ("kerberos", b"", KRB_ERROR, LIKELY),
]


def test_what_an_opening_is_worth() -> None:
    for name, up, down, verdict in CASES:
        assert DETECT[name](Opening(up=up, down=down)) is verdict
