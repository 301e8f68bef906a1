"""DNS over TCP (RFC 1035 §4, RFC 7766), and over TLS inside that (RFC 7858).

A message has two bytes of length before it. It is recognised by the part up to its first question:
a header that fits, one question, a name of labels, a known type and class. What is valid but
unusual (another type, a name of other bytes, no question, a flag) needs the answer, which repeats
the message's id.
"""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Details, Opening, Protocol, Verdict
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader, evaluate
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Dns", "DnsDetails"]

HEADER: Final = 12
SMALLEST: Final = HEADER + 1 + 2 + 2
MAX_LABEL: Final = 63
MAX_NAME: Final = 255

# RFC 1035 §4.1.1, RFC 6895 §2.2: query, status, notify, update, stateful operations
OPCODES: Final = (0, 2, 4, 5, 6)
MAX_RECORDS: Final = 0x3FF
"""Records in a section of a response."""
MAX_UPDATES: Final = 0xFF
"""Records in a section of a request: only UPDATE has more than one or two."""

# RFC 1035 §3.2.4, RFC 2136 §1.3
CLASSES: Final = (b"\x00\x01", b"\x00\x03", b"\x00\x04", b"\x00\xfe", b"\x00\xff")

LABEL: Final = bytes(byte for byte in range(0x21, 0x7F) if byte not in b'".')
"""The bytes in names that people look up; a name may hold any byte."""

# IANA, "Resource Record (RR) TYPEs"
TYPES: Final = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    13: "HINFO",
    15: "MX",
    16: "TXT",
    17: "RP",
    18: "AFSDB",
    24: "SIG",
    25: "KEY",
    28: "AAAA",
    29: "LOC",
    33: "SRV",
    35: "NAPTR",
    36: "KX",
    37: "CERT",
    39: "DNAME",
    42: "APL",
    43: "DS",
    44: "SSHFP",
    45: "IPSECKEY",
    46: "RRSIG",
    47: "NSEC",
    48: "DNSKEY",
    49: "DHCID",
    50: "NSEC3",
    51: "NSEC3PARAM",
    52: "TLSA",
    53: "SMIMEA",
    55: "HIP",
    59: "CDS",
    60: "CDNSKEY",
    61: "OPENPGPKEY",
    62: "CSYNC",
    63: "ZONEMD",
    64: "SVCB",
    65: "HTTPS",
    99: "SPF",
    108: "EUI48",
    109: "EUI64",
    249: "TKEY",
    250: "TSIG",
    251: "IXFR",
    252: "AXFR",
    255: "ANY",
    256: "URI",
    257: "CAA",
    32768: "TA",
    32769: "DLV",
}


ANY: Final = bytes(range(0x100))
_COOKIE: Final = b"\0\0\0\0\0\1" + b"\0\0\x29"
"""RFC 7873 §5.4: one additional record, of the root and of type OPT (RFC 6891 §6.1.2)."""
_INVERSE: Final = b"\0\1\0\0\0\0" + b"\0\0\1\0\1"
"""RFC 1035 §6.4.2: one answer, whose name is asked for, of type A and class IN."""
ANSWER: Final = 0x80
_header: Final = Struct(">2xBB4H").unpack
_LEAST: Final = bytes.fromhex("0000 00 00 0001 0000 0000 0000")
"""The least that each field of the header of a message with one question can be."""


@dataclass(frozen=True, slots=True)
class Question:
    """The name that is asked for, its labels joined by dots (`.` is the root), and the type."""

    name: bytes
    type: str


def read_question(reader: Reader) -> Question:
    """A message up to the end of its first question, with its length before it."""
    return read_message(reader.part(reader.uint(2, SMALLEST)))


def read_message(message: Reader, alphabet: bytes = LABEL) -> Question:
    """A message up to the end of its first question; names of these bytes."""
    read_header(message)
    return read_asked(message, alphabet)


def read_asked(message: Reader, alphabet: bytes) -> Question:
    """The first question of a message, behind its header."""
    name = read_name(message, alphabet)
    kind = message.uint(2)
    if kind not in TYPES:
        raise ProtocolError("a type that is never asked for")
    message.one_of(*CLASSES)
    return Question(name, TYPES[kind])


def read_header(message: Reader) -> None:
    """The header of a message with one question."""
    raw = message.ahead(HEADER)
    flags, code, questions, *records = _header(raw + _LEAST[len(raw) :])
    if flags >> 3 & 0xF not in OPCODES:
        raise ProtocolError("an unknown operation")
    if code & 0x40 or (code & 0xF and not flags & ANSWER):  # RFC 1035 §4.1.1: Z must be zero
        raise ProtocolError("invalid flags")
    if questions != 1 or max(records) > (MAX_RECORDS if flags & ANSWER else MAX_UPDATES):
        raise ProtocolError("a number that is out of bounds")
    message.take(HEADER)


def read_unusual(reader: Reader) -> Question | None:
    """Any request up to the end of its first question, or of its record's type without one."""
    message = reader.part(reader.uint(2, SMALLEST))
    message.take(2)
    operation = message.uint(1, 0, ANSWER - 1) >> 3
    if operation > max(OPCODES) or message.uint(1) & 0xF:
        raise ProtocolError("an unknown operation, or a request with a result")
    if not message.uint(2, 0, 1):
        message.one_of(_INVERSE if operation == 1 else _COOKIE)
        return None
    for _ in ("answers", "authorities", "additional"):
        message.uint(2, 0, MAX_UPDATES)
    name, number = read_name(message, ANY), message.uint(2, 1)
    message.one_of(*CLASSES)
    return Question(name, TYPES.get(number, f"TYPE{number}"))  # RFC 3597 §5


def read_answer(reader: Reader, request: bytes) -> None:
    """The header of the answer to a request: the same id and operation (RFC 1035 §4.1.1)."""
    reader.uint(2, HEADER)
    reader.one_of(request[2:4])
    operation = ANSWER | request[4] & 0x78
    reader.uint(1, operation, operation | 0x07)


def read_name(reader: Reader, alphabet: bytes) -> bytes:
    """Labels up to an empty one. A first name has no earlier one to point to (RFC 1035 §4.1.4)."""
    labels = []
    size = 1
    while length := reader.uint(1, 0, MAX_LABEL):
        labels.append(reader.take(length, alphabet))
        size += 1 + length
        if size > MAX_NAME:
            raise ProtocolError("a name that is too long")
    return b".".join(labels) or b"."


def detect(opening: Opening) -> Verdict:
    """The client's first message; or an answer, in a capture that begins in the middle."""
    if (opening.up or opening.down)[6:7] > b"\0":
        return Verdict.REJECT  # too many questions: this rules out most other protocols
    verdict = _usual(opening)
    if verdict is not Verdict.REJECT or not opening.up:
        return verdict
    request = evaluate(read_unusual, opening.up)
    if request is not Verdict.MATCH:
        return request
    answer = evaluate(lambda reader: read_answer(reader, opening.up), opening.down)
    return Verdict.LIKELY if answer is Verdict.NEED_MORE else answer


_usual = single_message(read_question, read_question)


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsDetails(Details):
    """The first question. Over UDP also its answer: the code where it is no success (`NXDOMAIN`),
    and the addresses."""

    name: bytes | None = None
    type: str | None = None
    code: str | None = None
    addresses: tuple[str, ...] = ()


@dataclass(slots=True)
class Dns(Units):
    """Reads the first question; the rest passes."""

    name: ClassVar[str] = "dns"

    question: Question | None = None

    def client_unit(self, reader: Reader) -> None:
        if evaluate(read_question, reader.data) is Verdict.REJECT:
            self.question = read_unusual(reader)
        else:
            self.question = read_question(reader)
        self.stay_plain()

    def server_unit(self, reader: Reader) -> None:
        """An answer repeats the question (RFC 1035 §4.1.2): useful where that was not captured."""
        self.client_unit(reader)

    def details(self) -> DnsDetails:
        question = self.question
        return DnsDetails(
            name=question.name if question else None,
            type=question.type if question else None,
        )


PROTOCOL: Final = Protocol(
    name=Dns.name,
    detect=detect,
    converse=lambda context: Dns(context=context),
)
