"""SMB, NetBIOS sessions, DCE/RPC and Kerberos: what is one, and what only looks like it."""

from __future__ import annotations

import pytest

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.windows import PROTOCOLS

MATCH, LIKELY, NEED_MORE, REJECT = Verdict.MATCH, Verdict.LIKELY, Verdict.NEED_MORE, Verdict.REJECT
DETECT = {row.name: row.detect for row in PROTOCOLS if row.detect}

SESSION = b"\x81\0\0\x44 " + b"CKFDENEC" * 4 + b"\0 " + b"EGFCCACA" * 4 + b"\0"
SMB = b"\0\0\0\x2f\xffSMBr"
AS_REQ = bytes.fromhex("000000eb6a81e83081e5a103020105a20302010a")
KRB_ERROR = bytes.fromhex("000001127e82010e3082010aa003020105a10302011e")

CASES = [
    ("smb", b"\0\0\0\x1f\xff", b"", REJECT),  # shorter than any
    ("smb", b"\0\0\0\x40\xfeSMB", b"", MATCH),
    ("smb", b"\0\0\0\x40\xfdSMB", b"", MATCH),
    ("smb", b"\0\0\0\x40\xfbSMB", b"", REJECT),
    ("smb", SESSION, b"", NEED_MORE),
    ("smb", SESSION, b"\x82\0\0\0", NEED_MORE),
    ("smb", SESSION + SMB, b"", MATCH),
    ("smb", SESSION + b"\0\0\0\x40hello", b"", REJECT),
    ("smb", b"", SMB, REJECT),
    ("netbios-ssn", SESSION[:-1], b"", NEED_MORE),
    ("netbios-ssn", SESSION, b"", LIKELY),
    ("netbios-ssn", SESSION, b"\x82\0\0\0", LIKELY),
    ("netbios-ssn", SESSION + SMB[:5], b"", LIKELY),
    ("netbios-ssn", SESSION + SMB, b"", REJECT),
    ("netbios-ssn", SESSION + b"\0\0\0\x40hello", b"", MATCH),
    ("netbios-ssn", SESSION.replace(b"CK", b"ck"), b"", REJECT),
    ("netbios-ssn", b"", b"\x82", REJECT),
    ("dcerpc", b"\5\0\x0b\3\x10\0\0\0\x10\0\0\0\0\0\0", b"", NEED_MORE),
    ("dcerpc", b"\5\0\x0b\3\x10\0\0\0\x10\0\0\0\0\0\0\0", b"", MATCH),
    ("dcerpc", b"\5\0\x0b\3\0\0\0\0\0\x48\0\x10\0\0\0\0", b"", MATCH),  # big-endian
    ("dcerpc", b"\5\0\x0b\3\0\0\0\0\0\x0f", b"", REJECT),  # shorter than its head
    ("dcerpc", b"\5\0\x0b\3\x10\0\0\0\x48\0\x40\0", b"", REJECT),  # more proof than PDU
    ("dcerpc", b"\5\0\x0b\3\x20", b"", REJECT),
    ("dcerpc", b"\5\0\x01", b"", REJECT),
    ("dcerpc", b"\5\1\0", b"", REJECT),  # SOCKS5
    ("kerberos", AS_REQ[:-1], b"", NEED_MORE),
    ("kerberos", AS_REQ, b"", MATCH),
    ("kerberos", AS_REQ.replace(b"\xeb\x6a", b"\xec\x6a"), b"", REJECT),  # lengths differ
    ("kerberos", AS_REQ.replace(b"\xe5", b"\xe4"), b"", REJECT),
    ("kerberos", AS_REQ[:-1] + b"\x0c", b"", REJECT),  # TGS-REQ's type
    ("kerberos", AS_REQ.replace(b"\x6a", b"\x60"), b"", REJECT),
    ("kerberos", KRB_ERROR, b"", MATCH),  # a capture of the replies
    ("kerberos", b"", KRB_ERROR, REJECT),
]


@pytest.mark.parametrize(("name", "up", "down", "verdict"), CASES)
def test_what_an_opening_is_worth(name: str, up: bytes, down: bytes, verdict: Verdict) -> None:
    assert DETECT[name](Opening(up=up, down=down)) is verdict


def test_a_session_that_ends_behind_its_request_was_netbios() -> None:
    assert DETECT["netbios-ssn"](Opening(up=SESSION, up_ended=True)) is MATCH
