"""Tunnels that are only named: OpenVPN and PPTP.

    openvpn   length(2) opcode session(8) …     OpenVPN's ssl_pkt.h; the length is TCP's addition
    pptp      length(2) 00 01 1A2B3C4D …        RFC 2637 §2

OpenVPN begins with a hard reset of either side. A plain one is 14 bytes, of which seven are known.
One that is signed or encrypted (tls-auth, tls-crypt) has little more than its length and its
opcode; the answer acknowledges it, in twelve bytes more.
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Opening, Protocol, Verdict
from mitml4.protocols.evidence import Rule, answered, proof
from mitml4.protocols.fields import Reader

__all__ = ["PROTOCOLS"]

PLAIN: Final = b"\x00\x0e"
CLIENT_RESETS: Final = (b"\x38", b"\x50")
"""P_CONTROL_HARD_RESET_CLIENT_V2 and V3, with key 0."""
SERVER_RESET: Final = b"\x40"
SESSION: Final = 8
WRAPPINGS: Final = tuple(
    (14 + 8 + digest).to_bytes(2, "big") for digest in (16, 20, 28, 32, 48, 64)
)
"""A reset with the packet's number and time, and a digest of one of these sizes."""
ACKNOWLEDGEMENT: Final = 4 + SESSION
"""The number that is acknowledged, and whose it was."""


def read_plain_reset(reader: Reader) -> None:
    """A client's reset as it is: it acknowledges nothing, and is packet 0."""
    reader.one_of(PLAIN)
    reader.one_of(*CLIENT_RESETS)
    reader.take(SESSION)
    reader.one_of(bytes(1 + 4))


def read_wrapped_reset(reader: Reader) -> None:
    """A client's reset, signed or encrypted."""
    length = int.from_bytes(reader.one_of(*WRAPPINGS), "big")
    reader.one_of(*CLIENT_RESETS)
    reader.take(length - 1)


def wrapped_reply(up: bytes) -> Rule:
    """The server's reset that acknowledges the client's."""
    length = int.from_bytes(up[:2], "big") + ACKNOWLEDGEMENT

    def read(reader: Reader) -> None:
        reader.uint(2, length, length)
        reader.one_of(SERVER_RESET)

    return read


_plain: Final = proof(read_plain_reset)
_wrapped: Final = answered(read_wrapped_reset, wrapped_reply)


def detect_openvpn(opening: Opening) -> Verdict:
    """Either kind of reset; their lengths differ."""
    verdict = _plain(opening)
    return _wrapped(opening) if verdict is Verdict.REJECT else verdict


CONTROL_MESSAGE: Final = b"\x00\x01\x1a\x2b\x3c\x4d"
MIN_PPTP: Final = 12
MAX_PPTP: Final = 255


def read_pptp(reader: Reader) -> None:
    """A control message's head."""
    reader.uint(2, MIN_PPTP, MAX_PPTP)
    reader.one_of(CONTROL_MESSAGE)


PROTOCOLS: Final = (
    Protocol(name="openvpn", detect=detect_openvpn, client_first=b"\0", server_first=b""),
    Protocol(name="pptp", detect=proof(read_pptp), client_first=b"\0", server_first=b""),
)
