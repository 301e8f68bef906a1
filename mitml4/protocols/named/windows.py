"""Protocols of Windows networks besides SMB: DCE/RPC and Kerberos. Named only.

dcerpc      05 00 type flags order(4) length(2) …      DCE 1.1: RPC, §12.6.3.1
kerberos    length(4) [APPLICATION n] SEQUENCE …       RFC 4120 §5, §7.2.2
"""

from __future__ import annotations

from typing import Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.parts.ber import read_head
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader

__all__ = ["PROTOCOLS", "read_pdu"]

BYTE_ORDERS: Final = (b"\x00", b"\x01", b"\x10", b"\x11")
"""DCE 1.1: RPC, §14.1: integers big-endian or (1x) little-endian, characters ASCII or EBCDIC."""
PDU_TYPES: Final = tuple(bytes([kind]) for kind in (0, 2, 3, *range(11, 21)))
"""The types of the connection-oriented protocol (table 12-1; 20 is from MS-RPCE)."""
FIRST_FRAGMENT: Final = 0x01
RESERVED_FLAG: Final = 0x08
PDU_HEAD: Final = 16


def read_pdu(reader: Reader) -> None:
    """The common header of a PDU.

    The minor version is 0 in practice. With a 1, three bytes of it would be a SOCKS5 greeting.
    """
    reader.one_of(b"\x05\x00")
    reader.one_of(*PDU_TYPES)
    if reader.uint(1) & (FIRST_FRAGMENT | RESERVED_FLAG) != FIRST_FRAGMENT:
        raise ProtocolError("not a first fragment")
    little = reader.one_of(*BYTE_ORDERS) >= b"\x10"
    reader.uint(1, 0, 3)  # floating-point representation
    reader.one_of(b"\0\0")
    length = reader.uint(2, PDU_HEAD, little=little)
    reader.uint(2, 0, length - PDU_HEAD, little=little)  # authentication
    reader.take(4)  # call id


MAX_KERBEROS: Final = 1 << 20
SEQUENCE: Final = b"\x30"
APPLICATIONS: Final = {
    b"\x6a": b"\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0a",  # AS-REQ
    b"\x6b": b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x0b",  # AS-REP
    b"\x6c": b"\xa1\x03\x02\x01\x05\xa2\x03\x02\x01\x0c",  # TGS-REQ
    b"\x6d": b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x0d",  # TGS-REP
    b"\x6e": b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x0e",  # AP-REQ
    b"\x6f": b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x0f",  # AP-REP
    b"\x7e": b"\xa0\x03\x02\x01\x05\xa1\x03\x02\x01\x1e",  # KRB-ERROR
}
"""The beginning of a message's SEQUENCE, by its tag: version 5, and the type that belongs to the
tag."""


def read_kerberos(reader: Reader) -> None:
    """A message up to its type. Its three lengths must agree."""
    end = reader.uint(4, 16, MAX_KERBEROS) + 4
    tag = read_filling(reader, end, *APPLICATIONS)
    read_filling(reader, end, SEQUENCE)
    reader.one_of(APPLICATIONS[tag])


def read_filling(reader: Reader, end: int, *tags: bytes) -> bytes:
    """The head of an element that ends with its message."""
    tag, length = read_head(reader, *tags)
    if reader.at + length != end:
        raise ProtocolError("an element that does not fill its message")
    return tag


PROTOCOLS: Final = (
    Protocol(
        name="dcerpc",
        detect=single_message(read_pdu, read_pdu),
        client_first=b"\x05",
        server_first=b"\x05",
    ),
    Protocol(
        name="kerberos",
        detect=single_message(read_kerberos, read_kerberos),
        client_first=b"\0",
        server_first=b"\0",
    ),
)
