"""The handshake messages of TLS 1.3 after the ClientHello (RFC 8446 §4).

Each class reads a message's body with `parse` and writes the whole message, header and all, with
`encode`. `parse(body)` raises TlsError(DECODE_ERROR) for a body that is cut, has trailing bytes or
an impossible length, and `encode` gives the same bytes again.
"""

from __future__ import annotations

import struct
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension
from mitml4.protocols.tls.records import HandshakeType
from mitml4.tls.bridge.extensions import (
    Place,
    RawExtensions,
    check_answers,
    read_alpn,
    read_cookie,
    read_key_share,
    read_max_fragment_length,
    read_number,
    read_record_size_limit,
    read_uint16,
    read_uint16s,
)
from mitml4.tls.bridge.wire import Fields, message, uint16, vector

__all__ = [
    "Certificate",
    "CertificateRequest",
    "CertificateVerify",
    "CompressedCertificate",
    "EncryptedExtensions",
    "EndOfEarlyData",
    "Finished",
    "KeyUpdate",
    "NewSessionTicket",
    "ServerHello",
    "message_hash",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHello:
    """RFC 8446 §4.1.3; a HelloRetryRequest (§4.1.4) too, and the one of TLS 1.2."""

    legacy_version: int = 0x0303
    random: bytes
    session_id: bytes
    cipher_suite: int
    compression: int = 0
    extensions: RawExtensions

    @classmethod
    def parse(cls, body: bytes) -> ServerHello:
        fields = Fields(body, "ServerHello")
        version = fields.uint16()
        random = fields.take(32)
        session_id = fields.vector(1)
        if len(session_id) > 32:
            raise fields.error("has a session id of more than 32 bytes")
        cipher_suite = fields.uint16()
        compression = fields.uint8()
        extensions = RawExtensions.read(fields) if fields else RawExtensions(is_present=False)
        fields.end()
        return cls(
            legacy_version=version,
            random=random,
            session_id=session_id,
            cipher_suite=cipher_suite,
            compression=compression,
            extensions=extensions,
        )

    def encode(self) -> bytes:
        return message(
            HandshakeType.SERVER_HELLO,
            uint16(self.legacy_version),
            self.random,
            vector(1, self.session_id),
            uint16(self.cipher_suite),
            bytes((self.compression,)),
            self.extensions.encode(),
        )

    @property
    def is_retry(self) -> bool:
        return self.random == RETRY_RANDOM

    @property
    def selected_version(self) -> int:
        """Of the extension supported_versions, or else the old field's. Raises TlsError."""
        body = self.extensions.get(Extension.SUPPORTED_VERSIONS)
        return self.legacy_version if body is None else read_uint16(body)

    @property
    def key_share(self) -> tuple[int, bytes | None] | None:
        """The group, and its key, which is None in a HelloRetryRequest. Raises TlsError."""
        body = self.extensions.get(Extension.KEY_SHARE)
        if body is None:
            return None
        if self.is_retry:
            return read_uint16(body), None
        return read_key_share(body)

    @property
    def psk_index(self) -> int | None:
        """Which identity was selected. Raises TlsError."""
        body = self.extensions.get(Extension.PRE_SHARED_KEY)
        return None if body is None else read_uint16(body)

    @property
    def cookie(self) -> bytes | None:
        """Of a HelloRetryRequest. Raises TlsError."""
        body = self.extensions.get(Extension.COOKIE)
        return None if body is None else read_cookie(body)

    @property
    def alpn(self) -> bytes | None:
        """Of TLS 1.2. Raises TlsError."""
        return read_alpn(self.extensions)


@dataclass(frozen=True, slots=True)
class EncryptedExtensions:
    """RFC 8446 §4.3.1; with ALPS the client sends one too (draft-vvv-tls-alps §3)."""

    extensions: RawExtensions

    @classmethod
    def parse(cls, body: bytes) -> EncryptedExtensions:
        fields = Fields(body, "EncryptedExtensions")
        extensions = RawExtensions.read(fields)
        fields.end()
        return cls(extensions)

    def encode(self) -> bytes:
        return message(HandshakeType.ENCRYPTED_EXTENSIONS, self.extensions.encode())

    @property
    def alpn(self) -> bytes | None:
        """Raises TlsError."""
        return read_alpn(self.extensions)

    @property
    def early_data(self) -> bool:
        """Whether the server accepts early data."""
        return Extension.EARLY_DATA in self.extensions

    @property
    def record_size_limit(self) -> int | None:
        """RFC 8449 §4: bytes of a record's plaintext, its type and padding included. Raises
        TlsError."""
        body = self.extensions.get(Extension.RECORD_SIZE_LIMIT)
        return None if body is None else read_record_size_limit(body)

    @property
    def max_fragment_length(self) -> int | None:
        """RFC 6066 §4: bytes of a record's content. Raises TlsError."""
        body = self.extensions.get(Extension.MAX_FRAGMENT_LENGTH)
        return None if body is None else 1 << 8 + read_max_fragment_length(body)


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """RFC 8446 §4.3.2."""

    context: bytes
    extensions: RawExtensions

    @classmethod
    def parse(cls, body: bytes) -> CertificateRequest:
        fields = Fields(body, "CertificateRequest")
        context = fields.vector(1)
        extensions = RawExtensions.read(fields)
        fields.end()
        return cls(context, extensions)

    def encode(self) -> bytes:
        return message(
            HandshakeType.CERTIFICATE_REQUEST, vector(1, self.context), self.extensions.encode()
        )

    def check(self) -> None:
        """Raises TlsError for extensions that are malformed, not allowed here, or missing."""
        check_answers((), self.extensions, Place.CERTIFICATE_REQUEST)
        if Extension.SIGNATURE_ALGORITHMS not in self.extensions:
            raise TlsError(
                Alert.MISSING_EXTENSION, "a CertificateRequest without signature algorithms"
            )

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """What the answer may be signed with. Raises TlsError; `check` does if there are none."""
        return read_uint16s(self.extensions.get(Extension.SIGNATURE_ALGORITHMS) or b"")


@dataclass(frozen=True, slots=True)
class Certificate:
    """RFC 8446 §4.4.2: the certificates in DER, the leaf first, each with its extensions."""

    context: bytes
    entries: tuple[tuple[bytes, RawExtensions], ...]

    @classmethod
    def parse(cls, body: bytes) -> Certificate:
        fields = Fields(body, "Certificate")
        context = fields.vector(1)
        listed = fields.fields(3)
        fields.end()
        entries = []
        while listed:
            der = listed.vector(3, least=1)
            entries.append((der, RawExtensions.read(listed)))
        return cls(context, tuple(entries))

    @property
    def body(self) -> bytes:
        """The message without its header, which is what gets compressed (RFC 8879 §4)."""
        entries = (vector(3, der) + extensions.encode() for der, extensions in self.entries)
        return vector(1, self.context) + vector(3, *entries)

    def encode(self) -> bytes:
        return message(HandshakeType.CERTIFICATE, self.body)


@dataclass(frozen=True, slots=True)
class CompressedCertificate:
    """RFC 8879 §4. `length` is that of the Certificate's body."""

    algorithm: int
    length: int
    data: bytes

    @classmethod
    def parse(cls, body: bytes) -> CompressedCertificate:
        fields = Fields(body, "CompressedCertificate")
        algorithm, length = fields.uint16(), fields.uint24()
        data = fields.vector(3, least=1)
        fields.end()
        return cls(algorithm, length, data)

    def encode(self) -> bytes:
        return message(
            HandshakeType.COMPRESSED_CERTIFICATE,
            uint16(self.algorithm),
            self.length.to_bytes(3, "big"),
            vector(3, self.data),
        )


@dataclass(frozen=True, slots=True)
class CertificateVerify:
    """RFC 8446 §4.4.3, and the same form in RFC 5246 §7.4.8."""

    scheme: int
    signature: bytes

    @classmethod
    def parse(cls, body: bytes) -> CertificateVerify:
        fields = Fields(body, "CertificateVerify")
        scheme = fields.uint16()
        signature = fields.vector(2)
        fields.end()
        return cls(scheme, signature)

    def encode(self) -> bytes:
        return message(
            HandshakeType.CERTIFICATE_VERIFY, uint16(self.scheme), vector(2, self.signature)
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """RFC 8446 §4.4.4. The length is the hash's, or 12 in TLS 1.2; who compares it checks it."""

    verify_data: bytes

    @classmethod
    def parse(cls, body: bytes) -> Finished:
        return cls(body)

    def encode(self) -> bytes:
        return message(HandshakeType.FINISHED, self.verify_data)


@dataclass(frozen=True, slots=True)
class EndOfEarlyData:
    """RFC 8446 §4.5."""

    @classmethod
    def parse(cls, body: bytes) -> EndOfEarlyData:
        Fields(body, "EndOfEarlyData").end()
        return cls()

    def encode(self) -> bytes:
        return message(HandshakeType.END_OF_EARLY_DATA)


_LIFE: Final = struct.Struct(">II")
"""The lifetime and age_add of a ticket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSessionTicket:
    """RFC 8446 §4.6.1. `lifetime` is in seconds, `age_add` in milliseconds modulo 2^32."""

    lifetime: int
    age_add: int
    nonce: bytes
    ticket: bytes
    extensions: RawExtensions

    @classmethod
    def parse(cls, body: bytes) -> NewSessionTicket:
        fields = Fields(body, "NewSessionTicket")
        lifetime, age_add = _LIFE.unpack(fields.take(_LIFE.size))
        ticket = cls(
            lifetime=lifetime,
            age_add=age_add,
            nonce=fields.vector(1),
            ticket=fields.vector(2, least=1),
            extensions=RawExtensions.read(fields),
        )
        fields.end()
        return ticket

    def encode(self) -> bytes:
        return message(
            HandshakeType.NEW_SESSION_TICKET,
            _LIFE.pack(self.lifetime, self.age_add),
            vector(1, self.nonce),
            vector(2, self.ticket),
            self.extensions.encode(),
        )


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """RFC 8446 §4.6.3: whether the other side shall update its key too."""

    request: bool

    @classmethod
    def parse(cls, body: bytes) -> KeyUpdate:
        request = read_number(body, "KeyUpdate", Fields.uint8)
        if request > 1:
            raise TlsError(Alert.ILLEGAL_PARAMETER, f"a KeyUpdate of {request}")
        return cls(bool(request))

    def encode(self) -> bytes:
        return message(HandshakeType.KEY_UPDATE, bytes((self.request,)))


def message_hash(digest: bytes) -> bytes:
    """What stands for the first ClientHello in a transcript with a retry (RFC 8446 §4.4.1)."""
    return message(HandshakeType.MESSAGE_HASH, digest)
