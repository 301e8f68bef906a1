"""How routers talk to each other: BGP and LDP. Named only.

    bgp    16×FF length(2) type(1) …                                  RFC 4271 §4.1
    ldp    00 01 length(2) LSR(4) label space(2) message: type(2) length(2) id(4) …  RFC 5036 §3.1

Either side of BGP may open the conversation.
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.evidence import proof
from mitml4.protocols.fields import Reader

__all__ = ["PROTOCOLS"]

MARKER: Final = b"\xff" * 16
BGP_HEAD: Final = 19
BGP_TYPES: Final = 5
"""OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE-REFRESH (RFC 2918)."""


def read_bgp(reader: Reader) -> None:
    """A message's head. RFC 8654 lifts the limit of 4096 bytes."""
    reader.one_of(MARKER)
    reader.uint(2, BGP_HEAD)
    reader.uint(1, 1, BGP_TYPES)


LDP_HEAD: Final = 6
"""What the PDU's length counts before its first message."""
MAX_LDP: Final = 4096
LDP_MESSAGES: Final = (
    b"\x00\x01",  # notification
    b"\x01\x00",  # hello
    *(b"\x02\x00", b"\x02\x01"),  # initialization, keep-alive
    *(b"\x03\x00", b"\x03\x01"),  # addresses
    *(bytes([4, kind]) for kind in range(5)),  # labels
)


def read_ldp(reader: Reader) -> None:
    """A PDU's head, and its first message's, which must fit into it."""
    reader.one_of(b"\x00\x01")
    length = reader.uint(2, LDP_HEAD + 8, MAX_LDP)
    reader.take(LDP_HEAD)
    reader.one_of(*LDP_MESSAGES)
    reader.uint(2, 4, length - LDP_HEAD - 4)


PROTOCOLS: Final = (
    Protocol(
        name="bgp", detect=proof(read_bgp, read_bgp), client_first=b"\xff", server_first=b"\xff"
    ),
    Protocol(name="ldp", detect=proof(read_ldp), client_first=b"\0", server_first=b""),
)
