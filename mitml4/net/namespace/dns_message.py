"""The addresses and names in a DNS answer, the question of a query, and answers without records.

RFC 1035 §4.1. Only what this needs is parsed: messages of resolvers that the host trusts, and the
question of a query that nobody is to be trusted with.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.regex import regex

__all__ = [
    "Code",
    "Question",
    "addresses_in",
    "answer_without",
    "for_datagram",
    "is_truncated",
    "question_of",
    "without_options",
]

_HEADER: Final = struct.Struct("!6H")
_RECORD: Final = struct.Struct("!HHIH")
_LENGTH_OF_ADDRESS: Final = {1: 4, 28: 16}  # A (RFC 1035), AAAA (RFC 3596)
_MAX_RECORDS: Final = 256
_IS_RESPONSE: Final = 0x8000
_KEPT_FLAGS: Final = 0x7900  # opcode, RD
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_OPCODE: Final = 0x7800
_TRUNCATED: Final = 0x0200
_OPT: Final = 41  # RFC 6891 §6.1.1
_OPT_HEAD: Final = 3
"""Bytes of an OPT before its size: the name of the root, and the type."""
_MAX_DATAGRAM: Final = 4096
_LABEL: Final = regex(rb"[0-9A-Za-z_-]{1,63}")
_IN: Final = 1
_BINDINGS: Final = (64, 65)  # SVCB and HTTPS (RFC 9460)


class Code(IntEnum):
    """RFC 1035 §4.1.1."""

    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What a query asks for."""

    name: str
    kind: int

    @property
    def is_binding(self) -> bool:
        """Whether it asks how to reach a service: by which other name, with which ECH key."""
        return self.kind in _BINDINGS

    def query(self, number: int) -> bytes:
        """A query with this question and nothing else, so that nothing else is told to resolvers:
        no options, no flags, no bytes behind it."""
        labels = [label.encode("ascii") for label in self.name.split(".")]
        name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
        header = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
        return header + name + struct.pack("!HH", self.kind, _IN)


def question_of(query: bytes) -> Question | None:
    """The question of a plain query for a host name; None for everything else: updates, several
    questions, records besides an OPT (RFC 6891), labels that a resolver might read differently."""
    try:
        _, flags, questions, answers, authorities, others = _HEADER.unpack_from(query)
        if flags & (_IS_RESPONSE | _OPCODE) or (questions, answers, authorities) != (1, 0, 0):
            return None
        at, labels = _HEADER.size, []
        while length := query[at]:
            label = query[at + 1 : at + 1 + length]
            if len(label) != length or not _LABEL.fullmatch(label):
                return None
            labels.append(label.decode("ascii"))
            at += 1 + length
        kind, kind_of_network = struct.unpack_from("!HH", query, at + 1)
    except (struct.error, IndexError):
        return None
    if kind_of_network != _IN or others > 1 or not labels:
        return None
    return Question(".".join(labels), kind)


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


def answer_without(query: bytes, code: Code) -> bytes | None:
    """An answer without records, so that the client need not wait for its time-out; None if it is
    not a query. Where it has not one question, the code is FORMERR (RFC 9619 §4)."""
    try:
        number, flags, questions, *_ = _HEADER.unpack_from(query)
        if flags & _IS_RESPONSE:
            return None
        told = _IS_RESPONSE | (flags & _KEPT_FLAGS) | _RECURSION_AVAILABLE
        if questions != 1:
            return _HEADER.pack(number, told | Code.FORMAT_ERROR, 0, 0, 0, 0)
        end = _skip_name(query, _HEADER.size) + 4
    except (struct.error, IndexError):
        return None
    told |= code
    return _HEADER.pack(number, told, 1, 0, 0, 0) + query[_HEADER.size : end]


def for_datagram(query: bytes) -> bytes:
    """A query whose answer may have 4,096 bytes in a datagram (RFC 6891 §6.2.3: the class of OPT is
    the size). One that cannot be read stays as it is."""
    size = struct.pack("!H", _MAX_DATAGRAM)
    try:
        if opt := _options(query):
            at, _ = opt
            return query[: at + _OPT_HEAD] + size + query[at + _OPT_HEAD + 2 :]
        number, flags, *counts, others = _HEADER.unpack_from(query)
        if counts != [1, 0, 0] or others:
            return query
    except (struct.error, IndexError):
        return query
    header = _HEADER.pack(number, flags, *counts, 1)
    end = _skip_name(query, _HEADER.size) + 4
    return header + query[_HEADER.size : end] + struct.pack("!xH", _OPT) + size + bytes(6)


def without_options(answer: bytes, query: bytes) -> bytes:
    """An answer to a query that became one for a datagram: without an OPT where the query has none
    (RFC 6891 §7)."""
    try:
        opt = _options(answer)
        if not opt or opt[1] != len(answer) or _options(query):
            return answer
    except (struct.error, IndexError):
        return answer
    *before, others = _HEADER.unpack_from(answer)
    return _HEADER.pack(*before, others - 1) + answer[_HEADER.size : opt[0]]


def is_truncated(answer: bytes) -> bool:
    """Whether more of it can be had by TCP."""
    return len(answer) >= _HEADER.size and bool(answer[2] & _TRUNCATED >> 8)


def _options(message: bytes) -> tuple[int, int] | None:
    """Where an OPT begins and ends. Raises struct.error, IndexError."""
    _, _, questions, *counts = _HEADER.unpack_from(message)
    at = _HEADER.size
    for _ in range(min(questions, _MAX_RECORDS)):
        at = _skip_name(message, at) + 4
    for _ in range(min(sum(counts), _MAX_RECORDS)):
        begin = at
        at = _skip_name(message, at)
        kind, _, _, length = _RECORD.unpack_from(message, at)
        at += _RECORD.size + length
        if kind == _OPT:
            return begin, at
    return None


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
