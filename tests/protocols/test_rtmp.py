"""RTMP: a handshake of few certain bytes."""

from __future__ import annotations

from mitml4.protocols.conversation import Opening, Verdict
from mitml4.protocols.rtmp import HANDSHAKE_BYTES, PORT, detect

ZEROS = b"\x03\x00\x07\xaa\x57\x00\x00\x00\x00"
FLASH = b"\x03\x00\x00\x00\x00\x09\x00\x7c\x02"
ENCRYPTED = b"\x06\x00\x00\x00\x00\x80\x00\x03\x02"
RDP = b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00"


def whole(start: bytes) -> bytes:
    return start.ljust(HANDSHAKE_BYTES, b"\xaa")


def test_little_is_certain_without_the_port() -> None:
    for up, down, port, verdict in (
        (b"", b"\x03", PORT, Verdict.NEED_MORE),
        (b"", b"\x06", PORT, Verdict.REJECT),
        (b"", ZEROS[:-1], PORT, Verdict.NEED_MORE),
        (b"", ZEROS, PORT, Verdict.LIKELY),
        (b"", FLASH, PORT, Verdict.REJECT),
        (b"", whole(ZEROS), None, Verdict.REJECT),
        (b"G", whole(ZEROS), None, Verdict.REJECT),
        (b"\x03", b"", None, Verdict.NEED_MORE),
        (ZEROS[:-1], b"", PORT, Verdict.NEED_MORE),
        (ZEROS, b"", PORT, Verdict.LIKELY),
        (ZEROS, b"\x83", PORT, Verdict.NEED_MORE),
        (ZEROS, b"", None, Verdict.NEED_MORE),
        (whole(ZEROS)[:-1], b"", None, Verdict.NEED_MORE),
        (whole(ZEROS), b"", None, Verdict.MATCH),
        (whole(FLASH)[:-1], b"", PORT, Verdict.NEED_MORE),
        (whole(FLASH), b"", PORT, Verdict.LIKELY),
        (whole(FLASH), b"", None, Verdict.NEED_MORE),
        (whole(FLASH), b"\x03", PORT, Verdict.LIKELY),
        (whole(FLASH), whole(b"\x03")[:-1], None, Verdict.NEED_MORE),
        (whole(FLASH), whole(b"\x03"), None, Verdict.MATCH),
        (whole(FLASH), b"\x15", None, Verdict.REJECT),
        (whole(ENCRYPTED), whole(b"\x06"), None, Verdict.MATCH),
        (whole(ENCRYPTED), b"\x03", None, Verdict.REJECT),
        (RDP, b"", PORT, Verdict.REJECT),
        (whole(RDP), whole(b"\x03"), PORT, Verdict.REJECT),
        (b"\x04" + ZEROS[1:], b"", PORT, Verdict.REJECT),
    ):
        assert detect(Opening(up=up, down=down, port=port)) is verdict
