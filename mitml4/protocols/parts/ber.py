"""The heads of BER elements (X.690 §8.1), for protocols that are followed but not decoded."""

from __future__ import annotations

from mitml4.errors import ProtocolError
from mitml4.protocols.parts.fields import Reader

__all__ = ["read_head", "read_length"]


def read_length(reader: Reader) -> int:
    """A definite length, in the short form or in the long form of up to four bytes.

    The long form need not be the shortest one: Microsoft's LDAP always uses four bytes.
    """
    first = reader.uint(1, 0, 0x84)
    if first < 0x80:
        return first
    if first == 0x80:
        raise ProtocolError("an element of indefinite length")
    return reader.uint(first & 0x7F)


def read_head(reader: Reader, *tags: bytes) -> tuple[bytes, int]:
    """Read one of these tags and a length; return both."""
    return reader.one_of(*tags), read_length(reader)
