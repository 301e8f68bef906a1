"""A server of TLS 1.2 wants another handshake inside the connection (RFC 5246 §7.4.1.1), mostly to
ask for a certificate when it knows the request.

It sends a HelloRequest, and gets the client's first hello again, as far as that is of TLS 1.2, with
the ends of the last handshake (RFC 5746 §3.5). The client learns nothing of it. So the server has
to show the same certificate as before, as BoringSSL demands.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from mitml4.crypto.records import Protection
from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import Extension
from mitml4.protocols.tls.records import HandshakeType, RecordType
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.flight import Flight, ServerFinished
from mitml4.tls.bridge.hello import Replacements, relay_hello
from mitml4.tls.bridge.identity import Identity
from mitml4.tls.bridge.leg import KeyLog, Leg, Message
from mitml4.tls.bridge.messages import ServerHello
from mitml4.tls.bridge.older import is_bridged
from mitml4.tls.bridge.older_server import OlderServer
from mitml4.tls.bridge.wire import Fields, message, uint16, vector

__all__ = ["CHANGE", "MAX_RENEGOTIATIONS", "Renegotiable", "Renegotiation"]

CHANGE: Final = (RecordType.CHANGE_CIPHER_SPEC, b"\x01")
"""Behind this record, records have the new keys."""

MAX_RENEGOTIATIONS: Final = 8
"""Of one connection. Each costs us two signatures."""
_TLS_1_2: Final = 0x0303
_TLS_1_3_SUITES: Final = 0x13
_REPEATED: Final = frozenset(
    {
        Extension.SERVER_NAME,
        Extension.MAX_FRAGMENT_LENGTH,
        Extension.STATUS_REQUEST,
        Extension.SUPPORTED_GROUPS,
        Extension.EC_POINT_FORMATS,
        Extension.SIGNATURE_ALGORITHMS,
        Extension.SIGNED_CERTIFICATE_TIMESTAMP,
        Extension.EXTENDED_MASTER_SECRET,
        Extension.RECORD_SIZE_LIMIT,
    }
)
"""The application protocol stays: BoringSSL and OpenSSL do not offer any again."""


@dataclass(slots=True, kw_only=True)
class Renegotiable:
    """What a connection keeps for a renegotiation."""

    hello: bytes
    """The first hello that the server got, header and all."""
    certificate: bytes
    """The SHA-256 of the server's."""
    extended: bool
    """Whether the master secret is an extended one (RFC 7627)."""
    ends: tuple[bytes, bytes]
    """The content of the last Finished of the client's, and of the server's."""
    identity: Identity | None
    """What answers a server that asks for a client's certificate."""
    keylog: KeyLog | None
    left: int = MAX_RENEGOTIATIONS

    def begin(self) -> Renegotiation | None:
        """None: there were too many."""
        if not self.left:
            return None
        self.left -= 1
        return Renegotiation(self)


class Renegotiation(Leg):
    """One handshake inside a connection, which protects its records."""

    def __init__(self, past: Renegotiable) -> None:
        hello = _second_hello(past.hello, past.ends[0])
        record = bytes([RecordType.HANDSHAKE]) + uint16(_TLS_1_2) + vector(2, hello)
        offered = relay_hello(record, Replacements())
        super().__init__(offered.random, past.keylog)
        self._past = past
        self._offered = offered
        self._older: OlderServer | None = None
        self._records: list[tuple[RecordType, bytes]] = []
        self.asks_certificate = False
        """Whether the server asks for a client's certificate."""
        self.is_done = False
        self.send(offered.sent)

    def send(self, message: bytes) -> None:
        self.transcript.add(message)
        self._records.append((RecordType.HANDSHAKE, message))

    def send_change_cipher_spec(self) -> None:
        self._records.append(CHANGE)

    def taken_records(self) -> list[tuple[RecordType, bytes]]:
        """What is to be sent now, once: the type and the content of each."""
        records, self._records = self._records, []
        return records

    @property
    def seals(self) -> Protection:
        """Of the records that are sent behind `CHANGE`."""
        assert self.records_out.protection
        return self.records_out.protection

    @property
    def opens(self) -> Protection | None:
        """Of the server's records behind its ChangeCipherSpec; None: it has sent none."""
        return self.records_in.protection

    def take(self, message: Message) -> None:
        """The server's next message, or its ChangeCipherSpec. Raises TlsError."""
        try:
            if self._older is None:
                self._take_hello(message)
            elif take := self._older.take:
                self._follow(take(message))
            else:
                raise TlsError(Alert.UNEXPECTED_MESSAGE, "more than the handshake")
        except CannotBridge as reason:
            raise TlsError(Alert.HANDSHAKE_FAILURE, f"renegotiation: {reason}") from None

    def _take_hello(self, message: Message) -> None:
        _, body = self.expect(message, HandshakeType.SERVER_HELLO)
        hello = ServerHello.parse(body)
        ends = b"".join(self._past.ends)
        self._older = OlderServer(self, self._offered, hello, verify_data=ends)
        if self._older.chosen.extended != self._past.extended:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "another kind of master secret")
        self.transcript.add(message[1])

    def _follow(self, event: Flight | ServerFinished | None) -> None:
        assert self._older
        match event:
            case Flight() as flight:
                if sha256(flight.chain[0]).digest() != self._past.certificate:
                    raise TlsError(Alert.ILLEGAL_PARAMETER, "another certificate than before")
                self.asks_certificate = flight.asks_certificate
                self._older.finish(self._past.identity)
            case ServerFinished():
                self._past.ends = self._older.ends
                self.is_done = True


def _second_hello(first: bytes, end: bytes) -> bytes:
    """A ClientHello of TLS 1.2 like the first one. `end`: the content of the client's Finished.

    The random is empty, and is filled in when the hello is relayed.
    """
    fields = Fields(first, "ClientHello", 4 + 2 + 32)
    fields.vector(1)
    suites = [
        suite for suite in fields.uint16s(2) if is_bridged(suite) and suite >> 8 != _TLS_1_3_SUITES
    ]
    compressions = fields.vector(1)
    listed = fields.fields(2)
    extensions = []
    while listed:
        kind, body = listed.uint16(), listed.vector(2)
        if kind in _REPEATED:
            extensions.append(uint16(kind) + vector(2, body))
    extensions.append(uint16(Extension.RENEGOTIATION_INFO) + vector(2, vector(1, end)))
    return message(
        HandshakeType.CLIENT_HELLO,
        uint16(_TLS_1_2),
        bytes(32),
        vector(1),
        vector(2, *map(uint16, suites)),
        vector(1, compressions),
        vector(2, *extensions),
    )
