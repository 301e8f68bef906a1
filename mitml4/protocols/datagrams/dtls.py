"""DTLS 1.0 to 1.3 in its handshake (RFC 6347, RFC 9147): the hellos, which may be in fragments.

record     type version(2) epoch(2) number(6) length(2)
handshake  type length(3) message(2) offset(3) length(3)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Details, Direction
from mitml4.protocols.datagram import DatagramConversation, DatagramProtocol, Evidence
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.tls.fingerprints import ja4
from mitml4.protocols.tls.hello import ClientHello, ServerHello
from mitml4.protocols.tls.names import cipher_name, group_name
from mitml4.protocols.tls.records import HandshakeType, RecordType

__all__ = ["PROTOCOL", "Dtls", "DtlsDetails"]

VERSIONS: Final = (b"\xfe\xff", b"\xfe\xfd", b"\x01\x00")
"""DTLS 1.0 and 1.2 (1.3 says 1.2 in its records), and OpenSSL's before the standard."""
NAMES: Final = {0xFEFF: "DTLSv1.0", 0xFEFD: "DTLSv1.2", 0xFEFC: "DTLSv1.3"}
HEADER: Final = 13
MAX_RECORD: Final = (1 << 14) + 2048
MAX_HELLO: Final = 1 << 16
ENCRYPTED_1_3: Final = 0x20
"""RFC 9147 §4: the first three bits of the header of a record that is encrypted."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record in plain text, or one that may be encrypted (`epoch` is not 0)."""

    type: int
    epoch: int
    body: bytes


def read_record(reader: Reader) -> Record:
    """The next record, with the header of all versions up to 1.2."""
    kind = reader.uint(1, RecordType.CHANGE_CIPHER_SPEC, RecordType.HEARTBEAT)
    reader.one_of(*VERSIONS)
    epoch = reader.uint(2, 0, 0xFF)
    reader.one_of(b"\0\0")  # no sender counts as far as that
    reader.take(4)
    return Record(kind, epoch, reader.take(reader.uint(2, 1, MAX_RECORD)))


def read_datagram(reader: Reader) -> None:
    """Records to the end; the first one in the header of all versions."""
    while reader.left:
        if reader.at and reader.data[reader.at] >> 5 == ENCRYPTED_1_3 >> 5:
            return
        record = read_record(reader)
        if record.type == RecordType.HANDSHAKE and not record.epoch:
            fragment = Reader(record.body, end=len(record.body))
            if fragment.uint(1) not in HANDSHAKES:
                raise ProtocolError("no handshake message")


HANDSHAKES: Final = frozenset(HandshakeType) | {3}
"""RFC 6347 §4.3.2: also a HelloVerifyRequest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DtlsDetails(Details):
    """From the ClientHello and the ServerHello; names are OpenSSL's."""

    sni: str | None = None
    alpn_offered: tuple[bytes, ...] | None = None
    alpn: bytes | None = None
    version: str | None = None
    cipher: str | None = None
    group: str | None = None
    ja4: str | None = None


@dataclass(slots=True)
class Dtls(DatagramConversation):
    """Reads until both hellos are known."""

    name: ClassVar[str] = "dtls"

    hello: ClientHello | None = None
    answer: ServerHello | None = None
    _fragments: dict[tuple[Direction, int, int, int], bytearray] = field(default_factory=dict)
    """By direction, number, type and length of the message."""

    def take(self, direction: Direction, datagram: bytes) -> None:
        for kind, body in self._messages(direction, datagram):
            if kind == HandshakeType.CLIENT_HELLO:
                self.hello = ClientHello.of_datagrams(body)
            elif kind == HandshakeType.SERVER_HELLO:
                self.answer = ServerHello.of_datagrams(body)
                self.details_ready = True
                self.over = self.hello is not None

    def _messages(self, direction: Direction, datagram: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages that are whole; fragments come in order, as all implementations send
        them."""
        reader = Reader(datagram, end=len(datagram))
        while reader.left:
            if datagram[reader.at] >> 5 == ENCRYPTED_1_3 >> 5:
                self.details_ready = self.over = True
                return
            record = read_record(reader)
            if record.epoch or record.type == RecordType.APPLICATION_DATA:
                self.details_ready = self.over = True
                return
            if record.type != RecordType.HANDSHAKE:
                continue
            part = Reader(record.body, end=len(record.body))
            while part.left:
                if found := self._add(direction, part):
                    yield found

    def _add(self, direction: Direction, part: Reader) -> tuple[int, bytes] | None:
        kind, length, number = part.uint(1), part.uint(3, 0, MAX_HELLO), part.uint(2)
        offset = part.uint(3)
        data = part.take(part.uint(3))
        if len(data) == length:
            return kind, data
        key = direction, number, kind, length
        if len(self._fragments) > 4 and key not in self._fragments:
            self._fragments.clear()
        whole = self._fragments.setdefault(key, bytearray())
        if offset == len(whole):
            whole += data
        if len(whole) < length:
            return None
        del self._fragments[key]
        return kind, bytes(whole)

    @property
    def memory(self) -> int:
        return sum(map(len, self._fragments.values()))

    def details(self) -> DtlsDetails:
        hello, answer = self.hello, self.answer
        version = answer.version if answer else None
        return DtlsDetails(
            sni=hello.sni if hello else None,
            alpn_offered=hello.alpn if hello else None,
            alpn=answer.alpn if answer else None,
            version=NAMES.get(version, f"0x{version:04x}") if version else None,
            cipher=cipher_name(answer.cipher_suite) if answer else None,
            group=group_name(answer.group) if answer and answer.group is not None else None,
            ja4=ja4(hello, "d") if hello else None,
        )


PROTOCOL: Final = DatagramProtocol(
    name=Dtls.name,
    request=read_datagram,
    evidence=Evidence.MAGIC,
    converse=lambda context: Dtls(context=context),
)
