"""The part of DER (X.690) that is needed to split a certificate and to build one, with unchanged
bytes.

A mirrored leaf contains parts of the server's certificate as the server encoded them, even if no
parser would accept them: a Latin-1 subject, a malformed subjectAltName. Certificate libraries
decode and encode again, and refuse the whole certificate for one bad part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "INTEGER",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "TRUE",
    "Element",
    "dotted",
    "elements",
    "tlv",
]

BOOLEAN: Final = 0x01  # X.690 §8 with the tags of X.680 §8.4
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
SEQUENCE: Final = 0x30

_MAX_OID_BYTES: Final = 32

TRUE: Final = b"\x01\x01\xff"


class Element(NamedTuple):
    """One tag-length-value: its tag octet, its contents, and its complete encoding."""

    tag: int
    content: bytes
    raw: bytes


def elements(data: bytes) -> Iterator[Element]:
    """The consecutive elements in `data`. Raises ValueError if it is malformed."""
    at = 0
    while at < len(data):
        header = data[at : at + 2]
        if len(header) < 2 or header[0] & 0x1F == 0x1F:
            raise ValueError("no DER element")
        start, size = at + 2, header[1]
        if size & 0x80:
            octets = size & 0x7F
            start += octets
            length = data[at + 2 : start]
            if not 1 <= octets <= 4 or len(length) < octets:
                raise ValueError("no DER length")
            size = int.from_bytes(length)
        if start + size > len(data):
            raise ValueError("a DER element is cut short")
        yield Element(header[0], data[start : start + size], data[at : start + size])
        at = start + size


def tlv(tag: int, *contents: bytes) -> bytes:
    """The element with this tag octet and these contents."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | octets)) + size.to_bytes(octets) + content


def dotted(oid: bytes) -> str:
    """The contents of an OBJECT IDENTIFIER as dotted decimals (X.690 §8.19), or as hexadecimal if
    an arc is unreasonably large; its size has no limit."""
    if not oid or len(oid) > _MAX_OID_BYTES or oid[-1] & 0x80:
        return f"0x{oid[:_MAX_OID_BYTES].hex()}"
    arcs: list[int] = []
    arc = 0
    for octet in oid:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    root = min(arcs[0] // 40, 2)
    return ".".join(map(str, (root, arcs[0] - 40 * root, *arcs[1:])))
