"""Names over UDP: DNS, and what has its format.

dns          RFC 1035 §4, port 53                      answers name the flows that follow
mdns         RFC 6762, port 5353 on both sides         the same, without questions
llmnr        RFC 4795 §2.1, port 5355
netbios-ns   RFC 1002 §4.2, port 137                   names are encoded in 32 letters
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Details, Direction
from mitml4.protocols.datagram import (
    DatagramConversation,
    DatagramProtocol,
    Evidence,
    Resolved,
)
from mitml4.protocols.dns import (
    ANSWER,
    ANY,
    CLASSES,
    HEADER,
    LABEL,
    MAX_LABEL,
    MAX_NAME,
    MAX_RECORDS,
    OPCODES,
    TYPES,
    DnsDetails,
    Question,
    read_asked,
    read_header,
    read_name,
)
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.wire_text import text
from mitml4.remember import remembered

__all__ = ["PROTOCOLS", "DnsExchange", "MdnsExchange", "NetbiosDetails"]

NO_SUCCESS: Final = {  # RFC 1035 §4.1.1, RFC 2136 §2.2
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    6: "YXDOMAIN",
    8: "NXRRSET",
    9: "NOTAUTH",
}
MAX_READ: Final = 64
"""Records of an answer that are read."""
A, AAAA = 1, 28
_REMEMBERED: Final = 16
_REMEMBERED_QUESTIONS: Final = 128
_MAX_REMEMBERED_BYTES: Final = 512
"""The longest message over UDP, as long as nothing else is agreed on (RFC 1035 §2.3.4)."""


@dataclass(frozen=True, slots=True)
class Record:
    """An address of a name."""

    name: bytes
    ip: str


def skip_name(reader: Reader) -> bytes:
    """A name that may point to an earlier one (RFC 1035 §4.1.4); all of its labels."""
    labels: list[bytes] = []
    size = 1
    at = reader
    while length := at.uint(1):
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | at.uint(1)
            if target >= at.at - 2:
                raise ProtocolError("a name that points forward")
            at = Reader(reader.data, target, reader.end)
            continue
        if length > MAX_LABEL:
            raise ProtocolError("a label that is too long")
        labels.append(at.take(length))
        size += 1 + length
        if size > MAX_NAME:
            raise ProtocolError("a name that is too long")
    return b".".join(labels) or b"."


def read_addresses(message: Reader) -> tuple[Record, ...]:
    """The records of a response that hold an address, from its beginning."""
    message.take(4)
    questions, answers = message.uint(2), message.uint(2)
    message.take(4)
    for _ in range(min(questions, MAX_READ)):
        skip_name(message)
        message.take(4)
    records = []
    for _ in range(min(answers, MAX_READ)):
        name = skip_name(message)
        kind = message.uint(2)
        message.take(6)
        data = message.take(message.uint(2))
        if (kind, len(data)) in ((A, 4), (AAAA, 16)):
            records.append(Record(name, str(ip_address(data))))
    return tuple(records)


def read_dns(reader: Reader) -> None:
    """A message with one question; or an answer without."""
    data = reader.data
    if data[2:3] >= bytes([ANSWER]) and data[4:6] == b"\0\0":
        read_bare_answer(reader)
    else:
        question_of(data)


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def question_of(message: bytes) -> Question:
    """What a message asks for, or answers. It is asked for by detection, then by who follows."""
    read_header(Reader(message, end=len(message)))
    return _asked(message[HEADER:])


@remembered(_REMEMBERED_QUESTIONS, _MAX_REMEMBERED_BYTES)
def _asked(body: bytes) -> Question:
    """The question of a message behind its header: most are asked again, with another id."""
    return read_asked(Reader(body, end=len(body)), ANY)


def read_bare_answer(reader: Reader) -> None:
    """A refusal, or an answer that does not repeat the question."""
    reader.take(2)
    if reader.uint(1) >> 3 & 0xF not in OPCODES:
        raise ProtocolError("an unknown operation")
    reader.uint(1)
    for _ in range(4):
        reader.uint(2, 0, MAX_RECORDS)


def read_mdns(reader: Reader) -> None:
    """A query or an announcement, of any number of records."""
    reader.take(2)
    if reader.uint(1) & 0x7B or reader.uint(1) & 0x4F:
        raise ProtocolError("no multicast DNS")
    counts = [reader.uint(2, 0, MAX_RECORDS) for _ in range(4)]
    if not any(counts):
        raise ProtocolError("no records")
    read_name(reader, ANY)
    if reader.uint(2) not in TYPES:
        raise ProtocolError("a type that is never asked for")
    reader.uint(1, 0, 0x80)  # RFC 6762 §5.4, §10.2: the first bit of the class is a flag
    reader.uint(1, 0, 0xFF)


def read_llmnr(reader: Reader) -> None:
    """A question, with the flags of RFC 4795 §2.1.1."""
    reader.take(2)
    if reader.uint(1) & 0x78 or reader.uint(1) & 0xE0:
        raise ProtocolError("no LLMNR")
    reader.uint(2, 1, 1)
    for _ in range(3):
        reader.uint(2, 0, MAX_RECORDS)
    read_name(reader, ANY)
    reader.take(2)
    reader.one_of(*CLASSES)


NETBIOS_NAME: Final = 32
HALVES: Final = bytes(range(ord("A"), ord("P") + 1))


def read_netbios(reader: Reader) -> bytes:
    """A name query, a registration or an answer; the name as sent."""
    reader.take(2)
    flags = reader.uint(2)
    if flags >> 11 & 0xF not in (0, 5, 6, 7, 8, 9, 15):
        raise ProtocolError("an unknown operation")
    for _ in range(4):
        reader.uint(2, 0, 64)
    reader.one_of(bytes([NETBIOS_NAME]))
    name = reader.take(NETBIOS_NAME, HALVES)
    read_name(reader, LABEL)  # the scope
    reader.one_of(b"\0\x20", b"\0\x21", b"\0\x0a")
    reader.one_of(b"\0\1")
    return name


@dataclass(slots=True)
class DnsExchange(DatagramConversation):
    """The first question and its answer; later answers only for the names in them."""

    name: ClassVar[str] = "dns"

    question: Question | None = None
    code: str | None = None
    addresses: tuple[str, ...] = ()
    _asked: bytes = b""
    """The id of the first question."""

    def take(self, direction: Direction, datagram: bytes) -> None:
        if len(datagram) < HEADER:
            raise ProtocolError("a message without its header")
        if self.question is None and datagram[4:6] == b"\0\1":
            self.question = question_of(datagram)
            self._asked = datagram[:2]
        if datagram[2] & ANSWER:
            self._take_answer(datagram)

    def _take_answer(self, datagram: bytes) -> None:
        records = read_addresses(Reader(datagram, end=len(datagram)))
        name = question_of(datagram).name if records else b""
        self.resolved += (Resolved(text(name), record.ip) for record in records)
        if datagram[:2] == self._asked and not self.details_ready:
            self.code = NO_SUCCESS.get(datagram[3] & 0x0F)
            self.addresses = tuple(record.ip for record in records)
            self.details_ready = True

    def details(self) -> DnsDetails:
        question = self.question
        return DnsDetails(
            name=question.name if question else None,
            type=question.type if question else None,
            code=self.code,
            addresses=self.addresses,
        )


@dataclass(slots=True)
class MdnsExchange(DatagramConversation):
    """The first name, and all addresses that are announced."""

    name: ClassVar[str] = "mdns"

    first: Question | None = None

    def take(self, direction: Direction, datagram: bytes) -> None:
        if len(datagram) < HEADER:
            raise ProtocolError("a message without its header")
        if self.first is None:
            reader = Reader(datagram, HEADER, len(datagram))
            name = read_name(reader, ANY)
            number = reader.uint(2)
            self.first = Question(name, TYPES.get(number, f"TYPE{number}"))
            self.details_ready = True
        if datagram[2] & ANSWER:
            for record in read_addresses(Reader(datagram, end=len(datagram))):
                self.resolved.append(Resolved(text(record.name), record.ip, for_everybody=True))

    def details(self) -> DnsDetails:
        first = self.first
        return DnsDetails(name=first.name if first else None, type=first.type if first else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetbiosDetails(Details):
    """The first name, without its padding and its last byte, the type of service."""

    name: bytes | None = None


@dataclass(slots=True)
class NetbiosNames(DatagramConversation):
    """The first name."""

    name: ClassVar[str] = "netbios-ns"

    first: bytes | None = None

    def take(self, direction: Direction, datagram: bytes) -> None:
        """RFC 1001 §14.1: each half of a byte is a letter."""
        letters = read_netbios(Reader(datagram, end=len(datagram)))
        pairs = zip(letters[::2], letters[1::2], strict=True)
        self.first = bytes((high - 65) << 4 | (low - 65) for high, low in pairs)[:-1].rstrip()
        self.details_ready = self.over = True

    def details(self) -> NetbiosDetails:
        return NetbiosDetails(name=self.first)


PROTOCOLS: Final = (
    DatagramProtocol(
        name=DnsExchange.name,
        request=read_dns,
        ports=frozenset({53}),
        converse=lambda context: DnsExchange(context=context),
    ),
    DatagramProtocol(
        name=MdnsExchange.name,
        request=read_mdns,
        ports=frozenset({5353}),
        evidence=Evidence.PORT,
        converse=lambda context: MdnsExchange(context=context),
    ),
    DatagramProtocol(
        name="llmnr", request=read_llmnr, ports=frozenset({5355}), evidence=Evidence.PORT
    ),
    DatagramProtocol(
        name=NetbiosNames.name,
        request=read_netbios,
        ports=frozenset({137}),
        evidence=Evidence.PORT,
        converse=lambda context: NetbiosNames(context=context),
    ),
)
