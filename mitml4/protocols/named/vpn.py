"""Tunnels that are only named: OpenVPN and PPTP.

    openvpn   length(2) opcode session(8) …     OpenVPN's ssl_pkt.h; the length only over TCP
    pptp      length(2) 00 01 1A2B3C4D …        RFC 2637 §2

OpenVPN begins with a hard reset from the client, which the server's reset acknowledges. After the
session come, in this order,

    plain                     acknowledgements, number 0
    signed (tls-auth)         a digest, packet 1, its time, acknowledgements, number 0
    encrypted (tls-crypt)     packet 1, its time, a tag, and the rest encrypted
    with the client's key     the same, and the client's key, encrypted for the server
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import Rule, either, single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS"]

CLIENT_RESETS: Final = (b"\x38", b"\x50")
"""P_CONTROL_HARD_RESET_CLIENT_V2 and V3, with key 0."""
SERVER_RESETS: Final = (b"\x40",)
SESSION: Final = 8
PACKET: Final = (b"\0\0\0\1", b"\x0f\0\0\1")
"""The number of the first packet; 0F means that the client can negotiate early (OpenVPN 2.6)."""
TIME: Final = 4
DIGESTS: Final = (16, 20, 28, 32, 48, 64)
TAG: Final = 32
NUMBER: Final = bytes(4)
NONE: Final = b"\0"
ONE: Final = b"\1" + NUMBER
MIN_WITH_KEY: Final = 54 + 290
MAX_WITH_KEY: Final = 54 + 1024
"""The length of an encrypted reset, and of a client's key with its data (tls_crypt.h)."""


def read_packet(reader: Reader) -> None:
    """The plain part of an encrypted reset: its number and its time."""
    reader.one_of(*PACKET)


def reset(opcodes: tuple[bytes, ...], *, acknowledges: bool, with_key: bool) -> Rule:
    """A reset of either side. Its length shows how it may be protected."""
    size = 1 + SESSION + (len(ONE) + SESSION if acknowledges else len(NONE)) + len(NUMBER)

    def read_plain(reader: Reader) -> None:
        reader.one_of(ONE if acknowledges else NONE)
        if acknowledges:
            reader.take(SESSION)
        reader.one_of(NUMBER)

    def signed(digest: int) -> Rule:
        def read(reader: Reader) -> None:
            reader.take(digest)
            read_packet(reader)
            reader.take(TIME)
            read_plain(reader)

        return read

    overhead = size + len(PACKET[0]) + TIME
    ways = {size: read_plain, **{overhead + digest: signed(digest) for digest in DIGESTS}}
    ways[overhead + TAG] = either(ways[overhead + TAG], read_packet)
    if with_key:
        ways |= dict.fromkeys(range(MIN_WITH_KEY, MAX_WITH_KEY + 1), read_packet)

    def read(reader: Reader) -> None:
        length = reader.uint(2, min(ways), max(ways))
        reader.one_of(*opcodes)
        if length not in ways:
            raise ProtocolError("a reset of a length that no protection has")
        reader.take(SESSION)
        ways[length](reader)

    return read


CLIENT_RESET: Final = reset(CLIENT_RESETS, acknowledges=False, with_key=True)
SERVER_RESET: Final = reset(SERVER_RESETS, acknowledges=True, with_key=False)


CONTROL_MESSAGE: Final = b"\x00\x01\x1a\x2b\x3c\x4d"
MIN_PPTP: Final = 12
MAX_PPTP: Final = 255


def read_pptp(reader: Reader) -> None:
    """The head of a control message."""
    reader.uint(2, MIN_PPTP, MAX_PPTP)
    reader.one_of(CONTROL_MESSAGE)


PROTOCOLS: Final = (
    Protocol(
        name="openvpn",
        detect=single_message(CLIENT_RESET, SERVER_RESET),
        client_first=bytes(range((MAX_WITH_KEY >> 8) + 1)),
        server_first=b"\0",
    ),
    Protocol(
        name="pptp",
        detect=single_message(read_pptp, read_pptp),
        client_first=b"\0",
        server_first=b"\0",
    ),
)
