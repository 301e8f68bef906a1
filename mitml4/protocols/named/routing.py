"""Protocols between routers: BGP and LDP. Named only.

    bgp    16×FF length(2) type(1) …                                  RFC 4271 §4.1
    ldp    00 01 length(2) LSR(4) label space(2), type(2) length(2) id(4) …   RFC 5036 §3.1, §3.5

In BGP either side may speak first.
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS"]

MARKER: Final = b"\xff" * 16
BGP_HEAD: Final = 19
BGP_TYPES: Final = 5
"""OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE-REFRESH (RFC 2918)."""


def read_bgp(reader: Reader) -> None:
    """The head of a message. RFC 8654 lifts the limit of 4096 bytes."""
    reader.one_of(MARKER)
    reader.uint(2, BGP_HEAD)
    reader.uint(1, 1, BGP_TYPES)


LDP_HEAD: Final = 6
"""Bytes that the PDU's length counts before its first message."""
MAX_LDP: Final = 4096
KEEP_ALIVE: Final = b"\x02\x01"
FIRST_TLV: Final = {
    b"\x00\x01": b"\x03\x00",  # notification: status
    b"\x02\x00": b"\x05\x00",  # initialization: session parameters
    **{bytes([3, kind]): b"\x01\x01" for kind in range(2)},  # addresses: a list of them
    **{bytes([4, kind]): b"\x01\x00" for kind in range(5)},  # labels: FEC
}
"""The beginning of each message (§3.5). Hellos are sent only over UDP."""


def read_ldp(reader: Reader) -> None:
    """The head of a PDU, and the beginning of its first message, which must fit into it."""
    reader.one_of(b"\x00\x01")
    length = reader.uint(2, LDP_HEAD + 8, MAX_LDP)
    reader.uint(4, 1)
    reader.take(2)
    kind = reader.one_of(KEEP_ALIVE, *FIRST_TLV)
    alive = kind == KEEP_ALIVE
    reader.uint(2, 4 if alive else 8, 4 if alive else length - LDP_HEAD - 4)
    reader.take(4)
    if not alive:
        reader.one_of(FIRST_TLV[kind])


PROTOCOLS: Final = (
    Protocol(
        name="bgp",
        detect=single_message(read_bgp, read_bgp),
        client_first=b"\xff",
        server_first=b"\xff",
    ),
    Protocol(
        name="ldp",
        detect=single_message(read_ldp, read_ldp),
        client_first=b"\0",
        server_first=b"\0",
    ),
)
