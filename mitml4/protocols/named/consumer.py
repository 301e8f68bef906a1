"""Games, messengers and remote support. Named only.

minecraft    length 00 version host port 01|02|03              Minecraft Wiki, "Protocol", handshake
steam        length(4) "VT01" …                                SteamKit's TcpConnection
teamviewer   17 24 or 11 30 …                                  nDPI's teamviewer.c; both sides
whatsapp     "WA" version …, perhaps behind ED 00 01           nDPI's whatsapp.c
telegram     EF, EEEEEEEE or DDDDDDDD, length, key id …        MTProto, "Transports"; not obfuscated
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import Rule, either, request_response, single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS"]

HOST: Final = bytes(byte for byte in range(0x21, 0x7F)) + b"\0"
"""Some modified games add NUL and a marker."""


def read_minecraft(reader: Reader) -> None:
    """A handshake, whose length must be that of its fields."""
    length = reader.uint(1, 8, 0x7F)
    end = reader.at + length
    reader.one_of(b"\0")
    for _ in range(3):  # up to 2^21; the last byte has no flag
        if not reader.uint(1) & 0x80:
            break
    else:
        raise ProtocolError("an unknown version")
    size = reader.uint(1, 1, 0x7F)
    if reader.at + size + 3 != end:
        raise ProtocolError("a handshake that does not fill its packet")
    reader.take(size, HOST)
    reader.take(2)
    reader.uint(1, 1, 3)


def read_steam(reader: Reader) -> None:
    """The header of an encrypted message."""
    reader.uint(4, 16, 1 << 20, little=True)
    reader.one_of(b"VT01")


def read_teamviewer(reader: Reader) -> None:
    """A packet's magic of either version, and its command."""
    reader.one_of(b"\x17\x24", b"\x11\x30")
    reader.uint(1, 0x0A, 0x40)


def teamviewer_reply(_up: bytes) -> Rule:
    return read_teamviewer


def read_whatsapp(reader: Reader) -> None:
    """The prologue of Noise, and the length of the first message."""
    if reader.data[reader.at : reader.at + 1] == b"\xed":
        reader.one_of(b"\xed\0\1")
        reader.take(reader.uint(3, 0, 512))
    reader.one_of(b"WA")
    reader.uint(1, 4, 6)
    reader.uint(1, 0, 9)
    reader.uint(3, 16, 1024)


UNENCRYPTED: Final = bytes(8)
"""The id of no key: a client that has none asks for one."""


def read_abridged(reader: Reader) -> None:
    """A length in fours, and a message without a key."""
    reader.one_of(b"\xef")
    reader.uint(1, 5, 0x7E)
    reader.one_of(UNENCRYPTED)


def read_intermediate(reader: Reader) -> None:
    """A length, without or with padding."""
    reader.one_of(b"\xee" * 4, b"\xdd" * 4)
    reader.uint(4, 20, 1 << 16, little=True)


PROTOCOLS: Final = (
    Protocol(
        name="minecraft",
        detect=single_message(read_minecraft),
        client_first=bytes(range(8, 0x80)),
        server_first=b"",
    ),
    Protocol(name="steam", detect=single_message(read_steam, read_steam)),
    Protocol(
        name="teamviewer",
        detect=request_response(read_teamviewer, teamviewer_reply),
        client_first=b"\x11\x17",
        server_first=b"\x11\x17",
    ),
    Protocol(
        name="whatsapp",
        detect=single_message(read_whatsapp),
        client_first=b"W\xed",
        server_first=b"",
    ),
    Protocol(
        name="telegram",
        detect=single_message(either(read_abridged, read_intermediate)),
        client_first=b"\xdd\xee\xef",
        server_first=b"",
    ),
)
