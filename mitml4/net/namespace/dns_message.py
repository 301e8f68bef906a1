"""The addresses and names in a DNS answer, and a failure answer.

RFC 1035 §4.1. Only what this needs is parsed, and only messages of resolvers that the host trusts.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["addresses_in", "failure"]

_HEADER: Final = struct.Struct("!6H")
_RECORD: Final = struct.Struct("!HHIH")
_LENGTH_OF_ADDRESS: Final = {1: 4, 28: 16}  # A (RFC 1035), AAAA (RFC 3596)
_MAX_RECORDS: Final = 256
_IS_RESPONSE: Final = 0x8000
_KEPT_FLAGS: Final = 0x7900  # opcode, RD
_RECURSION_AVAILABLE: Final = 0x0080
_SERVFAIL: Final = 2


def addresses_in(message: bytes) -> Iterator[tuple[str, str]]:
    """Pairs of an address in an answer and the name in its question; none if it is malformed.

    The name in the question, not the alias (CNAME) that led to the address: it is the name that the
    client uses.
    """
    try:
        _, flags, questions, answers, *_ = _HEADER.unpack_from(message)
        if not flags & _IS_RESPONSE or questions != 1:
            return
        name, at = _name(message, _HEADER.size)
        at += 4
        for _ in range(min(answers, _MAX_RECORDS)):
            at = _skip_name(message, at)
            kind, _, _, length = _RECORD.unpack_from(message, at)
            at += _RECORD.size
            data = message[at : at + length]
            at += length
            if _LENGTH_OF_ADDRESS.get(kind) == len(data) == length:
                yield str(ipaddress.ip_address(data)), name
    except (struct.error, IndexError, ValueError):
        return


def failure(query: bytes) -> bytes | None:
    """SERVFAIL for a query, so that the client need not wait for its time-out; None if it is not a
    query."""
    try:
        number, flags, questions, *_ = _HEADER.unpack_from(query)
        if flags & _IS_RESPONSE or questions != 1:
            return None
        end = _skip_name(query, _HEADER.size) + 4
    except (struct.error, IndexError):
        return None
    told = _IS_RESPONSE | (flags & _KEPT_FLAGS) | _RECURSION_AVAILABLE | _SERVFAIL
    return _HEADER.pack(number, told, 1, 0, 0, 0) + query[_HEADER.size : end]


def _name(message: bytes, at: int) -> tuple[str, int]:
    """A name without compression, as in a question, and its end."""
    labels = []
    while length := message[at]:
        if length > 63:
            raise ValueError("compressed")
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "backslashreplace"))
        at += 1 + length
    return ".".join(labels), at + 1


def _skip_name(message: bytes, at: int) -> int:
    while length := message[at]:
        if length >= 0xC0:  # a pointer ends it (RFC 1035 §4.1.4)
            return at + 2
        at += 1 + length
    return at + 1
