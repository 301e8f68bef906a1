"""Objects, switches and storage that are spoken to over a network. Named only.

giop       "GIOP" version(2) flags type length(4) …        CORBA 3.3, part 2, §9.4.1
openflow   version 00 length(2) transaction(4) …           OpenFlow Switch Specification §7.1.1
ceph       "ceph v027" or "ceph v2" LF …                   Ceph's msgr.h; both sides
neo4j      60 60 B0 17 and four versions                   Bolt Protocol, "Handshake"
rethinkdb  a magic number, little-endian                   RethinkDB, "Writing drivers"
hl7        0B "MSH|" …                                     HL7, "Minimal Lower Layer Protocol"
"""

from __future__ import annotations

from typing import Final

from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.evidence import Rule, request_response, single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS"]


def read_giop(reader: Reader) -> None:
    """The header of a message up to its type."""
    reader.one_of(b"GIOP\x01")
    reader.uint(1, 0, 3)
    reader.uint(1, 0, 3)
    reader.uint(1, 0, 7)


VERSIONS: Final = b"\x01\x02\x04\x05\x06"
"""1.0 to 1.5. TPKT begins like 1.2, which nobody has deployed."""


def read_openflow(reader: Reader) -> None:
    """A HELLO, with which both sides begin."""
    reader.take(1, VERSIONS)
    reader.one_of(b"\0")
    length = reader.uint(2, 8, 64)
    reader.take(4)
    if length > 8:
        reader.one_of(b"\0\1")  # a bitmap of versions
        reader.take(length - 10)


def openflow_reply(_up: bytes) -> Rule:
    """The other side's HELLO."""
    return read_openflow


def read_ceph(reader: Reader) -> None:
    """The banner of either side."""
    reader.one_of(b"ceph v027", b"ceph v2\n")


def read_neo4j(reader: Reader) -> None:
    """The magic, and versions that end with zeros or with minor and major numbers."""
    reader.one_of(b"\x60\x60\xb0\x17")
    reader.take(16)


MAGIC: Final = tuple(
    number.to_bytes(4, "little")
    for number in (0x3F61BA36, 0x723081E1, 0x5F75E83E, 0x400C2D20, 0x34C2BDC3)
)
"""Versions 0.1 to 1.0 of the protocol."""


def read_rethinkdb(reader: Reader) -> None:
    """The number of the protocol's version."""
    reader.one_of(*MAGIC)


def read_hl7(reader: Reader) -> None:
    """A message's first segment, in its frame."""
    reader.one_of(b"\x0bMSH|", b"\x0bFHS|", b"\x0bBHS|")


PROTOCOLS: Final = (
    Protocol(
        name="giop",
        detect=single_message(read_giop, read_giop),
        client_first=b"G",
        server_first=b"G",
    ),
    Protocol(
        name="openflow",
        detect=request_response(read_openflow, openflow_reply),
        client_first=VERSIONS,
        server_first=VERSIONS,
    ),
    Protocol(
        name="ceph",
        detect=single_message(read_ceph, read_ceph),
        client_first=b"c",
        server_first=b"c",
    ),
    Protocol(
        name="neo4j", detect=single_message(read_neo4j), client_first=b"\x60", server_first=b""
    ),
    Protocol(
        name="rethinkdb",
        detect=single_message(read_rethinkdb),
        client_first=bytes(number[0] for number in MAGIC),
        server_first=b"",
    ),
    Protocol(
        name="hl7",
        detect=single_message(read_hl7, read_hl7),
        client_first=b"\x0b",
        server_first=b"\x0b",
    ),
)
