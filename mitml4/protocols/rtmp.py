"""RTMP, by its handshake (Adobe's RTMP specification 1.0, §5.2).

    client    C0: 03   C1: time, zero, 1528 random bytes (1536 in all)   C2: the server's S1
    server    S0: 03   S1: time, zero, 1528 random bytes                 S2: the client's C1

`zero` is zero, or Flash's version in the undocumented handshake with digests. RTMPE begins with
`06`. One byte and four zeros are little evidence: on an unusual port the whole C1 is needed, and
without the zeros the whole answer of the server as well.
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Opening, Protocol, Verdict

__all__ = ["PROTOCOL"]

PORT: Final = 1935
VERSION: Final = 3
ENCRYPTED: Final = 6
HANDSHAKE_BYTES: Final = 1 + 1536
ZERO: Final = slice(5, 9)


def detect(opening: Opening) -> Verdict:
    """The client's whole first unit, and the server's where that is not enough.

    A capture of one direction may show only the server's.
    """
    up, down = opening.up, opening.down
    if not up:
        return _by_server(opening)
    if up[0] not in (VERSION, ENCRYPTED) or _is_tpkt(up):
        return Verdict.REJECT
    zero = up[0] == VERSION and up[ZERO] == bytes(4)
    if zero and len(up) >= HANDSHAKE_BYTES:
        return Verdict.MATCH
    if down and down[0] != up[0]:
        return Verdict.REJECT if len(up) >= ZERO.stop and not zero else Verdict.NEED_MORE
    if min(len(up), len(down)) >= HANDSHAKE_BYTES:
        return Verdict.MATCH
    whole = down or zero or len(up) >= HANDSHAKE_BYTES
    return Verdict.LIKELY if opening.port == PORT and whole else Verdict.NEED_MORE


def _by_server(opening: Opening) -> Verdict:
    """The server's unit while the client is silent: not enough on an unusual port."""
    down = opening.down
    if down and (opening.port != PORT or down[0] != VERSION or any(down[ZERO])):
        return Verdict.REJECT
    return Verdict.LIKELY if len(down) >= ZERO.stop else Verdict.NEED_MORE


def _is_tpkt(up: bytes) -> bool:
    """Whether it is a connection request of ISO on TCP (RDP, S7): `03 00`, the length, and the
    length again."""
    if up[1:2] != b"\0" or len(up) < 6:
        return False
    length = int.from_bytes(up[2:4], "big")
    return up[4] + 5 == length and up[5] & 0xF0 == 0xE0


PROTOCOL: Final = Protocol(
    name="rtmp",
    detect=detect,
    client_first=bytes({VERSION, ENCRYPTED}),
    server_first=bytes({VERSION}),
)
