"""BitTorrent over UDP. Named only.

DHT        a dictionary with a query, an answer or an error           BEP 5
uTP        41 extension connection time 00000000 window 0001 0000     BEP 29: a SYN
tracker    0000041727101980 00000000 transaction                      BEP 15: a client connects
"""

from __future__ import annotations

import re
from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.datagram import DatagramProtocol, Evidence
from mitml4.protocols.parts.evidence import either
from mitml4.protocols.parts.fields import Reader
from mitml4.regex import regex

__all__ = ["PROTOCOLS"]

DHT: Final = regex(rb"d(?:2:ip(?:6|18):.{6,18})?1:(?:[ar]d2:id20:|eli20[0-9]e)", re.DOTALL)


def read_dht(reader: Reader) -> None:
    """The beginning of a message, up to the sender's id or a code of an error."""
    if DHT.match(reader.data) is None or not reader.data.endswith(b"e"):
        raise ProtocolError("no message of the DHT")


def read_utp(reader: Reader) -> None:
    """A SYN: the first packet, which acknowledges nothing."""
    reader.one_of(b"\x41\0", b"\x41\1", b"\x41\2")
    reader.take(6)
    reader.one_of(bytes(4))
    reader.take(4)
    reader.one_of(b"\0\1\0\0")


def read_tracker(reader: Reader) -> None:
    """A client connects; 16 bytes."""
    reader.one_of(bytes.fromhex("000004172710198000000000"))
    reader.take(4)
    if reader.left:
        raise ProtocolError("another length")


PROTOCOLS: Final = (
    DatagramProtocol(
        name="bittorrent",
        request=either(read_dht, read_utp, read_tracker),
        ports=frozenset({6881}),
        evidence=Evidence.MAGIC,
    ),
)
