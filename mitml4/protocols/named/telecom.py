"""Protocols of telephone networks and calls: Diameter, SMPP, STUN. Named only.

    diameter   01 length(3) flags command(3) application(4) ids(8) AVPs     RFC 6733 §3
    smpp       length(4) command(4) 00000000 sequence(4) system id …        SMPP 3.4 §3.2, §4.1
    stun       type(2) length(2) 2112A442 transaction(12) …                 RFC 8489 §5

STUN over TCP may be framed by a length of two bytes (ICE, RFC 6544 §3, with RFC 4571).
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader

__all__ = ["PROTOCOLS"]

DIAMETER_HEAD: Final = 20
AVP_HEAD: Final = 8
MAX_DIAMETER: Final = 1 << 20
MIN_COMMAND: Final = 257
AVPS: Final = (0x100, 0x3FF)
"""The first AVP is one of the base protocol (§4.5), and so has no vendor."""
AVP_FLAGS: Final = (b"\x40", b"\x00", b"\x60", b"\x20")


def read_diameter(reader: Reader) -> None:
    """The header of a message, and the head of its first AVP."""
    reader.one_of(b"\x01")
    length = reader.uint(3, DIAMETER_HEAD + AVP_HEAD, MAX_DIAMETER)
    if length % 4 or reader.uint(1) & 0x0F:
        raise ProtocolError("a length that is not padded, or a reserved flag")
    reader.uint(3, MIN_COMMAND)
    reader.take(4 + 8)
    reader.uint(4, *AVPS)
    reader.one_of(*AVP_FLAGS)
    reader.uint(3, AVP_HEAD, length - DIAMETER_HEAD)


BINDS: Final = tuple(b"\0\0\0" + kind for kind in (b"\x01", b"\x02", b"\x09"))
"""Binds as receiver, transmitter, or both (§5.1.2.1)."""
MAX_BIND: Final = 1024
SMPP_VERSIONS: Final = (0, 0x50)


def read_smpp(reader: Reader) -> None:
    """A client's bind: name, password, type of system, and the addresses that it serves."""
    length = reader.uint(4, 23, MAX_BIND) - 4
    bind = reader.part(length)
    bind.one_of(*BINDS)
    bind.one_of(bytes(4))  # status
    bind.uint(4, 1)
    for limit in (16, 9, 13):
        bind.until(b"\0", limit, PRINTABLE)
    bind.uint(1, *SMPP_VERSIONS)
    bind.take(2)  # type and plan of the addresses
    bind.until(b"\0", 41, PRINTABLE)
    if bind.at != bind.end:
        raise ProtocolError("a bind that does not end with its fields")


STUN_TYPES: Final = 0x1FF
STUN_HEAD: Final = 20
MAGIC: Final = b"\x21\x12\xa4\x42"
MAX_STUN: Final = 2048


def read_stun(reader: Reader) -> int:
    """The fixed part of a message's head. Returns the length of the whole message."""
    reader.uint(2, 0, STUN_TYPES)
    length = reader.uint(2, 0, MAX_STUN)
    if length % 4:
        raise ProtocolError("a length that is not padded")
    reader.one_of(MAGIC)
    return STUN_HEAD + length


def read_framed_stun(reader: Reader) -> None:
    """The same in a frame of the same length."""
    frame = reader.uint(2, STUN_HEAD, STUN_HEAD + MAX_STUN)
    if read_stun(reader) != frame:
        raise ProtocolError("a frame whose length does not fit its message")


STUN: Final = either(read_stun, read_framed_stun)

PROTOCOLS: Final = (
    Protocol(
        name="diameter",
        detect=single_message(read_diameter, read_diameter),
        client_first=b"\x01",
        server_first=b"\x01",
    ),
    Protocol(name="smpp", detect=single_message(read_smpp), client_first=b"\0", server_first=b""),
    Protocol(
        name="stun",
        detect=single_message(STUN, STUN),
        client_first=bytes(range(STUN_HEAD + MAX_STUN >> 8)),
        server_first=bytes(range(STUN_HEAD + MAX_STUN >> 8)),
    ),
)
