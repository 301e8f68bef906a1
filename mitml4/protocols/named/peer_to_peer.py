"""Peer-to-peer networks: BitTorrent, Gnutella, Bitcoin. Named only.

bittorrent   13 "BitTorrent protocol" …                      BEP 3
gnutella     "GNUTELLA CONNECT/0.6" CRLF …                   Gnutella 0.6 §2
bitcoin      magic(4) command(12) length(4) checksum(4) …    Bitcoin P2P protocol, "Messages"
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader

__all__ = ["PROTOCOLS"]


def read_bittorrent(reader: Reader) -> None:
    """The name of the protocol, after its length."""
    reader.one_of(b"\x13BitTorrent protocol")


def read_gnutella(reader: Reader) -> None:
    """A client's greeting, or the answer to it."""
    reader.one_of(b"GNUTELLA CONNECT/0.", b"GNUTELLA/0.6 ")


NETWORKS: Final = tuple(
    bytes.fromhex(magic) for magic in ["f9beb4d9", "0b110907", "1c163f28", "0a03cf40", "fabfb5da"]
)
"""The main network, testnet 3 and 4, signet, regtest."""
COMMAND: Final = 12
MAX_BITCOIN: Final = 32 << 20


def read_bitcoin(reader: Reader) -> None:
    """The header of a message."""
    reader.one_of(*NETWORKS)
    name = reader.take(COMMAND, PRINTABLE + b"\0").rstrip(b"\0")
    if not name or b"\0" in name:
        raise ProtocolError("no command")
    reader.uint(4, 0, MAX_BITCOIN, little=True)


PROTOCOLS: Final = (
    Protocol(
        name="bittorrent",
        detect=single_message(read_bittorrent, read_bittorrent),
        client_first=b"\x13",
        server_first=b"\x13",
    ),
    Protocol(
        name="gnutella",
        detect=single_message(read_gnutella, read_gnutella),
        client_first=b"G",
        server_first=b"G",
    ),
    Protocol(
        name="bitcoin",
        detect=single_message(read_bitcoin, read_bitcoin),
        client_first=bytes(magic[0] for magic in NETWORKS),
        server_first=bytes(magic[0] for magic in NETWORKS),
    ),
)
