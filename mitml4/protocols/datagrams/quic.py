"""QUIC (RFC 9000, RFC 9001; version 2: RFC 9369; versions of Google's by their names).

    client                                    server
      ├─ Initial (ClientHello, in pieces) ──────►│
      │◄─ Version Negotiation, or Retry ─────────┤   and then the first again
      │◄─ Initial (ServerHello), Handshake … ────┤

Initial packets are opened with keys that follow from the client's choice of a connection id. A
ClientHello may be spread over several packets and datagrams, in any order: a browser's has two of
them, and is chopped. After a Retry, or if the first datagrams were not captured, the keys follow
from another connection id.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final, Literal

from mitml4.crypto.quic import InitialKeys, retry_tag
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Details, Direction
from mitml4.protocols.datagram import DatagramConversation, DatagramProtocol, Evidence
from mitml4.protocols.datagrams.quic_packets import (
    TAG,
    CryptoStream,
    Kind,
    Packet,
    crypto_frames,
    is_known,
    packets,
    read_packet,
    version_name,
)
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.tls.fingerprints import ja4
from mitml4.protocols.tls.hello import ClientHello, ServerHello
from mitml4.protocols.tls.names import cipher_name, group_name
from mitml4.protocols.tls.records import HandshakeType, Message, RecordType

__all__ = ["PROTOCOL", "Quic", "QuicDetails"]

OLD_WITH_VERSION: Final = (b"\x09", b"\x0d", b"\x0f", b"\x19")
"""Public flags of Google's first packets up to Q043: a version, and an id of eight bytes."""


def read_first(reader: Reader) -> None:
    """A packet with a long header, or a first one of Google's old versions; what follows in the
    datagram may be anything."""
    if reader.data[reader.at : reader.at + 1] >= b"\x80":
        read_packet(reader)
        return
    reader.one_of(*OLD_WITH_VERSION)
    reader.take(8)
    reader.one_of(b"Q0")
    reader.take(2, b"0123456789")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuicDetails(Details):
    """From the ClientHello and the ServerHello. `alpn_offered` is what the client offers: the
    server's choice is encrypted. `versions`: what a server offers that did not want the client's
    version. `retry`: whether the server had the client prove its address."""

    version: str | None = None
    sni: str | None = None
    alpn_offered: tuple[bytes, ...] | None = None
    ja4: str | None = None
    cipher: str | None = None
    group: str | None = None
    ech: Literal["none", "offered"] | None = None
    retry: bool = False
    versions: tuple[str, ...] = ()


@dataclass(slots=True)
class _Side:
    """The Initial packets of one side."""

    keys: InitialKeys | None = None
    expected: int = 0
    stream: CryptoStream = field(default_factory=CryptoStream)


@dataclass(slots=True)
class Quic(DatagramConversation):
    """Opens Initial packets until both hellos are known."""

    name: ClassVar[str] = "quic"

    hello: ClientHello | None = None
    answer: ServerHello | None = None
    version: int | None = None
    versions: tuple[int, ...] = ()
    old: str | None = None
    """The name of a version of Google's that has no long header."""
    retry: bool = False
    _sides: dict[Direction, _Side] = field(
        default_factory=lambda: {direction: _Side() for direction in Direction}
    )
    _chosen: bytes = b""
    """The connection id that keys follow from."""

    def take(self, direction: Direction, datagram: bytes) -> None:
        if not datagram[:1] >= b"\x80":
            self._take_short(datagram)
            return
        for packet in packets(datagram):
            self._take_packet(direction, packet)
            if self.over:
                return

    def _take_short(self, datagram: bytes) -> None:
        """After the handshake; or Google's, whose hello is not TLS."""
        if datagram[:1] in OLD_WITH_VERSION and self.version is None and datagram[9:10] == b"Q":
            self.old = datagram[9:13].decode("latin-1")
        self.details_ready = self.over = True

    def _take_packet(self, direction: Direction, packet: Packet) -> None:
        match packet.kind:
            case Kind.NEGOTIATION:
                self.versions = packet.versions
            case Kind.RETRY:
                self._take_retry(packet)
            case Kind.INITIAL:
                self.version = packet.version
                if is_known(packet.version):
                    self._open(direction, packet)
                else:
                    self.details_ready = True
            case Kind.EARLY_DATA | Kind.HANDSHAKE:
                self.version = self.version or packet.version

    def _take_retry(self, packet: Packet) -> None:
        """RFC 9001 §5.8: one whose tag is not right is not the server's."""
        tag = retry_tag(packet.version, packet.raw[:-TAG], self._chosen)
        if self._chosen and tag not in (None, packet.raw[-TAG:]):
            raise ProtocolError("a Retry that does not authenticate")
        self.retry = True
        self._choose(packet.version, packet.source)

    def _choose(self, version: int, connection_id: bytes) -> None:
        self._chosen = connection_id
        for direction, side in self._sides.items():
            of_client = direction is Direction.UP
            side.keys = InitialKeys(version, connection_id, of_client=of_client)

    def _open(self, direction: Direction, packet: Packet) -> None:
        side = self._sides[direction]
        if side.keys is None:
            self._choose(packet.version, packet.destination)
        assert side.keys is not None
        opened = side.keys.open(packet.raw, packet.payload_at, expected=side.expected)
        if opened is None and packet.destination != self._chosen and direction is Direction.UP:
            self._choose(packet.version, packet.destination)
            opened = side.keys.open(packet.raw, packet.payload_at, expected=side.expected)
        if opened is None:
            return
        side.expected = max(side.expected, opened.number + 1)
        for offset, data in crypto_frames(opened.payload):
            side.stream.add(offset, data)
        self._read_hello(direction, side)

    def _read_hello(self, direction: Direction, side: _Side) -> None:
        found = side.stream.message()
        if found is None:
            return
        kind, body = found
        message = Message(RecordType.HANDSHAKE, kind, body)
        if direction is Direction.UP and kind == HandshakeType.CLIENT_HELLO and not self.hello:
            self.hello = ClientHello.of(message)
        elif direction is Direction.DOWN and kind == HandshakeType.SERVER_HELLO:
            self.answer = ServerHello.of(message)
            self.details_ready = True
        self.over = bool(self.hello and self.answer)

    @property
    def memory(self) -> int:
        return sum(side.stream.size for side in self._sides.values())

    def details(self) -> QuicDetails:
        hello, answer = self.hello, self.answer
        version = self.old
        if self.version is not None:
            version = version_name(self.version)
        return QuicDetails(
            version=version,
            sni=hello.sni if hello else None,
            alpn_offered=hello.alpn if hello else None,
            ja4=ja4(hello, "q") if hello else None,
            cipher=cipher_name(answer.cipher_suite) if answer else None,
            group=group_name(answer.group) if answer and answer.group is not None else None,
            ech=None if hello is None else "offered" if hello.ech else "none",
            retry=self.retry,
            versions=tuple(map(version_name, self.versions)),
        )


PROTOCOL: Final = DatagramProtocol(
    name=Quic.name,
    request=read_first,
    ports=frozenset({443}),
    evidence=Evidence.MAGIC,
    converse=lambda context: Quic(context=context),
)
