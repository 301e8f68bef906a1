"""Tunnels that are only named: OpenVPN and PPTP.

    openvpn   length(2) opcode session(8) …     OpenVPN's ssl_pkt.h; the length is TCP's addition
    pptp      length(2) 00 01 1A2B3C4D …        RFC 2637 §2

OpenVPN begins with a hard reset of the client, which the server's own acknowledges. Behind the
session comes, one after the other,

    plain                     what is acknowledged, number 0
    signed (tls-auth)         a digest, packet 1, its time, what is acknowledged, number 0
    encrypted (tls-crypt)     packet 1, its time, a tag, and all else encrypted
    with a key of its own     the same, and the client's key, encrypted for the server
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.evidence import Rule, either, proof
from mitml4.protocols.fields import Reader

__all__ = ["PROTOCOLS"]

CLIENT_RESETS: Final = (b"\x38", b"\x50")
"""P_CONTROL_HARD_RESET_CLIENT_V2 and V3, with key 0."""
SERVER_RESETS: Final = (b"\x40",)
SESSION: Final = 8
PACKET: Final = (b"\0\0\0\1", b"\x0f\0\0\1")
"""The first that is sent; 0F says that the client can negotiate early (OpenVPN 2.6)."""
TIME: Final = 4
DIGESTS: Final = (16, 20, 28, 32, 48, 64)
TAG: Final = 32
NUMBER: Final = bytes(4)
NONE: Final = b"\0"
ONE: Final = b"\1" + NUMBER
MIN_WITH_KEY: Final = 54 + 290
MAX_WITH_KEY: Final = 54 + 1024
"""An encrypted reset, and a client's key with what else is said of it (tls_crypt.h)."""


def read_head(reader: Reader, opcodes: tuple[bytes, ...], least: int, most: int) -> None:
    """A packet up to its session."""
    reader.uint(2, least, most)
    reader.one_of(*opcodes)
    reader.take(SESSION)


def encrypted(opcodes: tuple[bytes, ...], least: int, most: int) -> Rule:
    """A reset of which only its beginning is in the clear."""

    def read(reader: Reader) -> None:
        read_head(reader, opcodes, least, most)
        reader.one_of(*PACKET)

    return read


def reset(opcodes: tuple[bytes, ...], *, acknowledges: bool) -> Rule:
    """A reset of either side: plain, signed or encrypted."""
    size = 1 + SESSION + (len(ONE) + SESSION if acknowledges else len(NONE)) + len(NUMBER)

    def read_rest(reader: Reader) -> None:
        reader.one_of(ONE if acknowledges else NONE)
        if acknowledges:
            reader.take(SESSION)
        reader.one_of(NUMBER)

    def read_plain(reader: Reader) -> None:
        read_head(reader, opcodes, size, size)
        read_rest(reader)

    def signed(digest: int) -> Rule:
        length = size + digest + len(PACKET[0]) + TIME

        def read(reader: Reader) -> None:
            read_head(reader, opcodes, length, length)
            reader.take(digest)
            reader.one_of(*PACKET)
            reader.take(TIME)
            read_rest(reader)

        return read

    wrapped = size + len(PACKET[0]) + TIME + TAG
    return either(read_plain, *map(signed, DIGESTS), encrypted(opcodes, wrapped, wrapped))


CLIENT_RESET: Final = either(
    reset(CLIENT_RESETS, acknowledges=False),
    encrypted(CLIENT_RESETS[1:], MIN_WITH_KEY, MAX_WITH_KEY),
)
SERVER_RESET: Final = reset(SERVER_RESETS, acknowledges=True)


CONTROL_MESSAGE: Final = b"\x00\x01\x1a\x2b\x3c\x4d"
MIN_PPTP: Final = 12
MAX_PPTP: Final = 255


def read_pptp(reader: Reader) -> None:
    """A control message's head."""
    reader.uint(2, MIN_PPTP, MAX_PPTP)
    reader.one_of(CONTROL_MESSAGE)


PROTOCOLS: Final = (
    Protocol(
        name="openvpn",
        detect=proof(CLIENT_RESET, SERVER_RESET),
        client_first=bytes(range((MAX_WITH_KEY >> 8) + 1)),
        server_first=b"\0",
    ),
    Protocol(
        name="pptp", detect=proof(read_pptp, read_pptp), client_first=b"\0", server_first=b"\0"
    ),
)
