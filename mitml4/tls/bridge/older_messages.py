"""The handshake messages that only TLS 1.2 has (RFC 5246 §7.4), or has in another form.

They are read and written as those of TLS 1.3 (`messages.py`).
"""

from __future__ import annotations

from typing import Final

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.records import HandshakeType
from mitml4.tls.bridge.extensions import read_items, read_ocsp_response, read_vector
from mitml4.tls.bridge.wire import Fields, message, uint16, vector

__all__ = [
    "Certificate12",
    "CertificateRequest12",
    "CertificateStatus",
    "ClientKeyExchange",
    "NewSessionTicket12",
    "ServerHelloDone",
    "ServerKeyExchange",
]

_NAMED_CURVE: Final = 3  # RFC 8422 §5.4
_OCSP: Final = 1  # RFC 6066 §8


@dataclass(frozen=True, slots=True)
class Certificate12:
    """RFC 5246 §7.4.2: the certificates in DER, the leaf first."""

    chain: tuple[bytes, ...]

    @classmethod
    def parse(cls, body: bytes) -> Certificate12:
        fields = Fields(body, "Certificate")
        listed = fields.fields(3)
        fields.end()
        chain = []
        while listed:
            chain.append(listed.vector(3, least=1))
        return cls(tuple(chain))

    def encode(self) -> bytes:
        return message(
            HandshakeType.CERTIFICATE, vector(3, *(vector(3, der) for der in self.chain))
        )


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """RFC 6066 §8: an OCSP response. In TLS 1.3 it is the body of an entry's extension."""

    response: bytes

    @classmethod
    def parse(cls, body: bytes) -> CertificateStatus:
        return cls(read_ocsp_response(body))

    @property
    def body(self) -> bytes:
        return bytes((_OCSP,)) + vector(3, self.response)

    def encode(self) -> bytes:
        return message(HandshakeType.CERTIFICATE_STATUS, self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeyExchange:
    """Of ECDHE with a named group (RFC 8422 §5.4)."""

    group: int
    point: bytes
    scheme: int
    signature: bytes

    @classmethod
    def parse(cls, body: bytes) -> ServerKeyExchange:
        fields = Fields(body, "ServerKeyExchange")
        if fields.uint8() != _NAMED_CURVE:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a curve without a name")
        group = fields.uint16()
        point = fields.vector(1, least=1)
        scheme = fields.uint16()
        signature = fields.vector(2)
        fields.end()
        return cls(group=group, point=point, scheme=scheme, signature=signature)

    @property
    def params(self) -> bytes:
        """What is signed, after both randoms."""
        return bytes((_NAMED_CURVE,)) + uint16(self.group) + vector(1, self.point)

    def encode(self) -> bytes:
        return message(
            HandshakeType.SERVER_KEY_EXCHANGE,
            self.params,
            uint16(self.scheme),
            vector(2, self.signature),
        )


@dataclass(frozen=True, slots=True)
class ClientKeyExchange:
    """Of ECDHE (RFC 8422 §5.7)."""

    point: bytes

    @classmethod
    def parse(cls, body: bytes) -> ClientKeyExchange:
        return cls(read_vector(body, "ClientKeyExchange", 1, least=1))

    def encode(self) -> bytes:
        return message(HandshakeType.CLIENT_KEY_EXCHANGE, vector(1, self.point))


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRequest12:
    """RFC 5246 §7.4.4. `authorities` are names in DER."""

    types: bytes
    signature_algorithms: tuple[int, ...]
    authorities: tuple[bytes, ...]

    @classmethod
    def parse(cls, body: bytes) -> CertificateRequest12:
        fields = Fields(body, "CertificateRequest")
        types = fields.vector(1, least=1)
        algorithms = fields.uint16s(2)
        authorities = read_items(fields.fields(2))
        fields.end()
        return cls(types=types, signature_algorithms=algorithms, authorities=authorities)

    def encode(self) -> bytes:
        return message(
            HandshakeType.CERTIFICATE_REQUEST,
            vector(1, self.types),
            vector(2, *map(uint16, self.signature_algorithms)),
            vector(2, *(vector(2, name) for name in self.authorities)),
        )


@dataclass(frozen=True, slots=True)
class NewSessionTicket12:
    """RFC 5077 §3.3. `lifetime_hint` is in seconds; an empty ticket takes back the promise of
    one."""

    lifetime_hint: int
    ticket: bytes

    @classmethod
    def parse(cls, body: bytes) -> NewSessionTicket12:
        fields = Fields(body, "NewSessionTicket")
        lifetime_hint = fields.uint32()
        ticket = fields.vector(2)
        fields.end()
        return cls(lifetime_hint, ticket)

    def encode(self) -> bytes:
        return message(
            HandshakeType.NEW_SESSION_TICKET,
            self.lifetime_hint.to_bytes(4, "big"),
            vector(2, self.ticket),
        )


@dataclass(frozen=True, slots=True)
class ServerHelloDone:
    """RFC 5246 §7.4.5."""

    @classmethod
    def parse(cls, body: bytes) -> ServerHelloDone:
        Fields(body, "ServerHelloDone").end()
        return cls()

    def encode(self) -> bytes:
        return message(HandshakeType.SERVER_HELLO_DONE)
