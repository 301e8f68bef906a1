"""Handshake messages of TLS 1.3 (RFC 8446 §4) and TLS 1.2 (RFC 5246 §7.4), without the ClientHello.

Each class reads a message's body with `parse` and writes the whole message, header and all, with
`encode`. `parse(body)` raises TlsError(DECODE_ERROR) for a body that is cut, has trailing bytes or
an impossible length, and `encode` gives the same bytes again.

`parse` takes the bodies of extensions as they are; `check_answers` looks at them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import RETRY_RANDOM, Extension
from mitml4.protocols.tls.names import is_grease
from mitml4.protocols.tls.records import HandshakeType
from mitml4.tls.bridge.wire import Fields, message, uint16, vector

__all__ = [
    "Certificate",
    "Certificate12",
    "CertificateRequest",
    "CertificateRequest12",
    "CertificateStatus",
    "CertificateVerify",
    "ClientKeyExchange",
    "CompressedCertificate",
    "EncryptedExtensions",
    "EndOfEarlyData",
    "Finished",
    "KeyUpdate",
    "NewSessionTicket",
    "NewSessionTicket12",
    "Place",
    "RawExtensions",
    "ServerHello",
    "ServerHelloDone",
    "ServerKeyExchange",
    "check_answers",
    "message_hash",
]

_NAMED_CURVE: Final = 3  # RFC 8422 §5.4
_OCSP: Final = 1  # RFC 6066 §8
_UNCOMPRESSED: Final = 0  # RFC 8422 §5.1.2
_MIN_RECORD_SIZE: Final = 64  # RFC 8449 §4
_FRAGMENT_LENGTHS: Final = (1, 2, 3, 4)  # RFC 6066 §4
_ECH_CONFIRMATION_BYTES: Final = 8  # RFC 9849 §5


@dataclass(frozen=True, slots=True)
class RawExtensions:
    """Extensions in the order of the wire: type and body of each, no type twice."""

    items: tuple[tuple[int, bytes], ...] = ()
    is_present: bool = True
    """Whether there is a list at all. Up to TLS 1.2 a ServerHello may end before it."""

    @classmethod
    def read(cls, fields: Fields) -> RawExtensions:
        """The list with its length. Raises TlsError: DECODE_ERROR, or ILLEGAL_PARAMETER if a type
        is there twice (RFC 8446 §4.2: "There MUST NOT be more than one extension of the same
        type")."""
        block = fields.fields(2)
        items: list[tuple[int, bytes]] = []
        seen = set()
        while block:
            kind = block.uint16()
            if kind in seen:
                raise TlsError(Alert.ILLEGAL_PARAMETER, f"extension {kind} is there twice")
            seen.add(kind)
            items.append((kind, block.vector(2)))
        return cls(tuple(items))

    @property
    def types(self) -> tuple[int, ...]:
        return tuple(kind for kind, _ in self.items)

    def get(self, wanted: int) -> bytes | None:
        """The body of the extension of this type; None if there is none."""
        for kind, body in self.items:
            if kind == wanted:
                return body
        return None

    def __contains__(self, wanted: int) -> bool:
        return self.get(wanted) is not None

    def replaced(self, wanted: int, body: bytes) -> RawExtensions:
        """The same, but for the body of one extension."""
        return RawExtensions(
            tuple((kind, body if kind == wanted else old) for kind, old in self.items)
        )

    def without(self, *unwanted: int) -> RawExtensions:
        return RawExtensions(tuple(item for item in self.items if item[0] not in unwanted))

    def encode(self) -> bytes:
        if not self.is_present:
            return b""
        return vector(2, *(uint16(kind) + vector(2, body) for kind, body in self.items))


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
        return self.legacy_version if body is None else _one_uint16(body)

    @property
    def key_share(self) -> tuple[int, bytes | None] | None:
        """The group, and its key, which is None in a HelloRetryRequest. Raises TlsError."""
        body = self.extensions.get(Extension.KEY_SHARE)
        if body is None:
            return None
        if self.is_retry:
            return _one_uint16(body), None
        return _key_share(body)

    @property
    def psk_index(self) -> int | None:
        """Which identity was selected. Raises TlsError."""
        body = self.extensions.get(Extension.PRE_SHARED_KEY)
        return None if body is None else _one_uint16(body)

    @property
    def cookie(self) -> bytes | None:
        """Of a HelloRetryRequest. Raises TlsError."""
        body = self.extensions.get(Extension.COOKIE)
        return None if body is None else _cookie(body)

    @property
    def alpn(self) -> bytes | None:
        """Of TLS 1.2. Raises TlsError."""
        return _alpn_of(self.extensions)


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
        return _alpn_of(self.extensions)

    @property
    def early_data(self) -> bool:
        """Whether the server accepts early data."""
        return Extension.EARLY_DATA in self.extensions

    @property
    def record_size_limit(self) -> int | None:
        """RFC 8449 §4: bytes of a record's plaintext, its type and padding included. Raises
        TlsError."""
        body = self.extensions.get(Extension.RECORD_SIZE_LIMIT)
        return None if body is None else _record_size_limit(body)

    @property
    def max_fragment_length(self) -> int | None:
        """RFC 6066 §4: bytes of a record's content. Raises TlsError."""
        body = self.extensions.get(Extension.MAX_FRAGMENT_LENGTH)
        return None if body is None else 1 << 8 + _max_fragment_length(body)


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
        return _uint16s(self.extensions.get(Extension.SIGNATURE_ALGORITHMS) or b"")


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
        lifetime, age_add = fields.uint32(), fields.uint32()
        nonce = fields.vector(1)
        ticket = fields.vector(2, least=1)
        extensions = RawExtensions.read(fields)
        fields.end()
        return cls(
            lifetime=lifetime, age_add=age_add, nonce=nonce, ticket=ticket, extensions=extensions
        )

    def encode(self) -> bytes:
        return message(
            HandshakeType.NEW_SESSION_TICKET,
            self.lifetime.to_bytes(4, "big"),
            self.age_add.to_bytes(4, "big"),
            vector(1, self.nonce),
            vector(2, self.ticket),
            self.extensions.encode(),
        )

    @property
    def max_early_data(self) -> int:
        """Bytes of early data that the ticket allows. Raises TlsError."""
        body = self.extensions.get(Extension.EARLY_DATA)
        return 0 if body is None else _whole(body, "max_early_data_size", Fields.uint32)


@dataclass(frozen=True, slots=True)
class KeyUpdate:
    """RFC 8446 §4.6.3: whether the other side shall update its key too."""

    request: bool

    @classmethod
    def parse(cls, body: bytes) -> KeyUpdate:
        request = _whole(body, "KeyUpdate", Fields.uint8)
        if request > 1:
            raise TlsError(Alert.ILLEGAL_PARAMETER, f"a KeyUpdate of {request}")
        return cls(bool(request))

    def encode(self) -> bytes:
        return message(HandshakeType.KEY_UPDATE, bytes((self.request,)))


# TLS 1.2


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
        fields = Fields(body, "CertificateStatus")
        if (kind := fields.uint8()) != _OCSP:
            raise TlsError(Alert.ILLEGAL_PARAMETER, f"a CertificateStatus of type {kind}")
        response = fields.vector(3, least=1)
        fields.end()
        return cls(response)

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
        return cls(_only_vector(body, "ClientKeyExchange", 1, least=1))

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
        authorities = _items(fields.fields(2))
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


def message_hash(digest: bytes) -> bytes:
    """What stands for the first ClientHello in a transcript with a retry (RFC 8446 §4.4.1)."""
    return message(HandshakeType.MESSAGE_HASH, digest)


class Place(Enum):
    """The messages that have extensions."""

    SERVER_HELLO = auto()
    HELLO_RETRY_REQUEST = auto()
    ENCRYPTED_EXTENSIONS = auto()
    CERTIFICATE_REQUEST = auto()
    CERTIFICATE = auto()
    NEW_SESSION_TICKET = auto()
    SERVER_HELLO_12 = auto()


def check_answers(offered: Collection[int], extensions: RawExtensions, place: Place) -> None:
    """The rules of RFC 8446 §4.2 for the extensions of a message.

    `offered`: the types in the message that this one answers: in the ClientHello, or for a client's
    Certificate in the CertificateRequest. For TLS 1.2 it includes renegotiation_info if the cipher
    suite that stands for it was offered.

    Raises TlsError: UNSUPPORTED_EXTENSION for an answer to what was not offered, ILLEGAL_PARAMETER
    for an extension in a message that may not have it, and what is wrong with the body of one. An
    extension that was offered and that this module does not know is accepted.
    """
    for kind, body in extensions.items:
        # RFC 8701 §4: GREASE is offered, and never answered.
        if (kind not in offered or is_grease(kind)) and not (
            place in _NO_ANSWERS
            # "with the exception of the "cookie" extension in the HelloRetryRequest"
            or (kind == Extension.COOKIE and place is Place.HELLO_RETRY_REQUEST)
        ):
            raise TlsError(Alert.UNSUPPORTED_EXTENSION, f"extension {kind}, which was not offered")
        if kind not in _PLACES:
            continue
        if place not in _PLACES[kind]:
            raise TlsError(Alert.ILLEGAL_PARAMETER, f"extension {kind} in a message without it")
        if read := _BODIES.get((place, kind)):
            read(body)


_NO_ANSWERS: Final = frozenset({Place.CERTIFICATE_REQUEST, Place.NEW_SESSION_TICKET})
"""There, extensions that are not known are ignored."""

_HELLO: Final = Place.SERVER_HELLO
_RETRY: Final = Place.HELLO_RETRY_REQUEST
_ENCRYPTED: Final = Place.ENCRYPTED_EXTENSIONS
_REQUEST: Final = Place.CERTIFICATE_REQUEST
_CERTIFICATE: Final = Place.CERTIFICATE
_TICKET: Final = Place.NEW_SESSION_TICKET
_HELLO_12: Final = Place.SERVER_HELLO_12

# RFC 8446 §4.2, and IANA's column "TLS 1.3".
_PLACES: Final[dict[int, frozenset[Place]]] = {
    kind: frozenset(places)
    for kind, places in {
        Extension.SERVER_NAME: (_ENCRYPTED, _HELLO_12),
        Extension.MAX_FRAGMENT_LENGTH: (_ENCRYPTED, _HELLO_12),
        Extension.TRUNCATED_HMAC: (_HELLO_12,),
        Extension.STATUS_REQUEST: (_REQUEST, _CERTIFICATE, _HELLO_12),
        # RFC 8422 §4 has it in no ServerHello, but F5 BIG-IP sends it.
        Extension.SUPPORTED_GROUPS: (_ENCRYPTED, _HELLO_12),
        Extension.EC_POINT_FORMATS: (_HELLO_12,),
        Extension.SIGNATURE_ALGORITHMS: (_REQUEST,),
        Extension.USE_SRTP: (_ENCRYPTED, _HELLO_12),
        Extension.HEARTBEAT: (_ENCRYPTED, _HELLO_12),
        Extension.ALPN: (_ENCRYPTED, _HELLO_12),
        Extension.SIGNED_CERTIFICATE_TIMESTAMP: (_REQUEST, _CERTIFICATE, _HELLO_12),
        Extension.CLIENT_CERTIFICATE_TYPE: (_ENCRYPTED, _HELLO_12),
        Extension.SERVER_CERTIFICATE_TYPE: (_ENCRYPTED, _HELLO_12),
        Extension.PADDING: (),
        Extension.ENCRYPT_THEN_MAC: (_HELLO_12,),
        Extension.EXTENDED_MASTER_SECRET: (_HELLO_12,),
        Extension.COMPRESS_CERTIFICATE: (_REQUEST,),
        Extension.RECORD_SIZE_LIMIT: (_ENCRYPTED, _HELLO_12),
        Extension.CERT_WITH_EXTERN_PSK: (_HELLO,),
        Extension.DELEGATED_CREDENTIAL: (_REQUEST, _CERTIFICATE),
        Extension.SESSION_TICKET: (_HELLO_12,),
        Extension.PRE_SHARED_KEY: (_HELLO,),
        Extension.EARLY_DATA: (_ENCRYPTED, _TICKET),
        Extension.SUPPORTED_VERSIONS: (_HELLO, _RETRY),
        Extension.COOKIE: (_RETRY,),
        Extension.PSK_KEY_EXCHANGE_MODES: (),
        Extension.CERTIFICATE_AUTHORITIES: (_REQUEST,),
        Extension.OID_FILTERS: (_REQUEST,),
        Extension.POST_HANDSHAKE_AUTH: (),
        Extension.SIGNATURE_ALGORITHMS_CERT: (_REQUEST,),
        Extension.KEY_SHARE: (_HELLO, _RETRY),
        Extension.TRANSPARENCY_INFO: (_REQUEST, _CERTIFICATE, _HELLO_12),
        Extension.TICKET_REQUEST: (_ENCRYPTED,),
        Extension.DNSSEC_CHAIN: (_CERTIFICATE, _HELLO_12),
        Extension.TLS_FLAGS: tuple(Place),
        Extension.NEXT_PROTOCOL: (_HELLO_12,),
        Extension.APPLICATION_SETTINGS_OLD: (_ENCRYPTED,),
        Extension.APPLICATION_SETTINGS: (_ENCRYPTED,),
        Extension.CHANNEL_ID: (_ENCRYPTED, _HELLO_12),
        Extension.TRUST_ANCHORS: (_ENCRYPTED, _CERTIFICATE),
        Extension.ENCRYPTED_CLIENT_HELLO: (_RETRY, _ENCRYPTED),
        Extension.RENEGOTIATION_INFO: (_HELLO_12,),
    }.items()
}


def _whole(body: bytes, what: str, read: Callable[[Fields], int]) -> int:
    """A body that is one number."""
    fields = Fields(body, what)
    number = read(fields)
    fields.end()
    return number


def _only_vector(body: bytes, what: str, width: int, *, least: int) -> bytes:
    """A body that is one vector."""
    fields = Fields(body, what)
    content = fields.vector(width, least=least)
    fields.end()
    return content


def _one_uint16(body: bytes) -> int:
    return _whole(body, "extension", Fields.uint16)


def _one_uint8(body: bytes) -> int:
    return _whole(body, "extension", Fields.uint8)


def _empty(body: bytes) -> None:
    Fields(body, "extension without content").end()


def _uint16s(body: bytes) -> tuple[int, ...]:
    fields = Fields(body, "list of numbers")
    numbers = fields.uint16s(2)
    fields.end()
    return numbers


def _key_share(body: bytes) -> tuple[int, bytes]:
    fields = Fields(body, "key_share")
    group = fields.uint16()
    key = fields.vector(2, least=1)
    fields.end()
    return group, key


def _cookie(body: bytes) -> bytes:
    return _only_vector(body, "cookie", 2, least=1)


def _alpn(body: bytes) -> bytes:
    """RFC 7301 §3.1: the list "MUST contain exactly one" name."""
    fields = Fields(body, "application_layer_protocol_negotiation")
    names = fields.fields(2)
    fields.end()
    name = names.vector(1, least=1)
    names.end()
    return name


def _alpn_of(extensions: RawExtensions) -> bytes | None:
    body = extensions.get(Extension.ALPN)
    return None if body is None else _alpn(body)


def _record_size_limit(body: bytes) -> int:
    """RFC 8449 §4: "MUST treat receipt of a smaller value as a fatal error and generate an
    "illegal_parameter" alert". A higher one than the version's maximum is allowed of clients only;
    of a server too it has the meaning of the maximum."""
    limit = _one_uint16(body)
    if limit < _MIN_RECORD_SIZE:
        raise TlsError(Alert.ILLEGAL_PARAMETER, f"a record_size_limit of {limit}")
    return limit


def _max_fragment_length(body: bytes) -> int:
    code = _one_uint8(body)
    if code not in _FRAGMENT_LENGTHS:
        raise TlsError(Alert.ILLEGAL_PARAMETER, f"a max_fragment_length of {code}")
    return code


def _point_formats(body: bytes) -> None:
    """RFC 8422 §5.2: the list of a server has the uncompressed format."""
    if _UNCOMPRESSED not in _only_vector(body, "ec_point_formats", 1, least=1):
        raise TlsError(Alert.ILLEGAL_PARAMETER, "no uncompressed points")


def _timestamps(body: bytes) -> None:
    """RFC 6962 §3.3: a list of at least one, none of which is empty."""
    _items(Fields(_only_vector(body, "signed_certificate_timestamp", 2, least=1), "list"))


def _items(listed: Fields) -> tuple[bytes, ...]:
    """Vectors with a length of two bytes, none of which is empty."""
    items = []
    while listed:
        items.append(listed.vector(2, least=1))
    return tuple(items)


def _authorities(body: bytes) -> None:
    """RFC 8446 §4.2.4: at least one name."""
    _items(Fields(_only_vector(body, "certificate_authorities", 2, least=3), "list"))


def _vector_of(width: int, least: int) -> Callable[[bytes], bytes]:
    return lambda body: _only_vector(body, "extension", width, least=least)


def _exactly(count: int) -> Callable[[bytes], None]:
    def read(body: bytes) -> None:
        fields = Fields(body, "extension")
        fields.take(count)
        fields.end()

    return read


_BODIES: Final[dict[tuple[Place, int], Callable[[bytes], object]]] = {
    (_HELLO, Extension.SUPPORTED_VERSIONS): _one_uint16,
    (_HELLO, Extension.KEY_SHARE): _key_share,
    (_HELLO, Extension.PRE_SHARED_KEY): _one_uint16,
    (_RETRY, Extension.SUPPORTED_VERSIONS): _one_uint16,
    (_RETRY, Extension.KEY_SHARE): _one_uint16,
    (_RETRY, Extension.COOKIE): _cookie,
    (_RETRY, Extension.ENCRYPTED_CLIENT_HELLO): _exactly(_ECH_CONFIRMATION_BYTES),
    (_ENCRYPTED, Extension.SERVER_NAME): _empty,
    (_ENCRYPTED, Extension.MAX_FRAGMENT_LENGTH): _max_fragment_length,
    (_ENCRYPTED, Extension.SUPPORTED_GROUPS): _uint16s,
    (_ENCRYPTED, Extension.ALPN): _alpn,
    (_ENCRYPTED, Extension.CLIENT_CERTIFICATE_TYPE): _one_uint8,
    (_ENCRYPTED, Extension.SERVER_CERTIFICATE_TYPE): _one_uint8,
    (_ENCRYPTED, Extension.RECORD_SIZE_LIMIT): _record_size_limit,
    (_ENCRYPTED, Extension.EARLY_DATA): _empty,
    (_ENCRYPTED, Extension.ENCRYPTED_CLIENT_HELLO): _vector_of(2, least=1),
    (_REQUEST, Extension.SIGNATURE_ALGORITHMS): _uint16s,
    (_REQUEST, Extension.SIGNATURE_ALGORITHMS_CERT): _uint16s,
    (_REQUEST, Extension.CERTIFICATE_AUTHORITIES): _authorities,
    (_REQUEST, Extension.COMPRESS_CERTIFICATE): _vector_of(1, least=2),
    (_CERTIFICATE, Extension.STATUS_REQUEST): CertificateStatus.parse,
    (_CERTIFICATE, Extension.SIGNED_CERTIFICATE_TIMESTAMP): _timestamps,
    (_TICKET, Extension.EARLY_DATA): _exactly(4),
    (_HELLO_12, Extension.SERVER_NAME): _empty,
    (_HELLO_12, Extension.MAX_FRAGMENT_LENGTH): _max_fragment_length,
    (_HELLO_12, Extension.STATUS_REQUEST): _empty,
    (_HELLO_12, Extension.EC_POINT_FORMATS): _point_formats,
    (_HELLO_12, Extension.ALPN): _alpn,
    (_HELLO_12, Extension.SIGNED_CERTIFICATE_TIMESTAMP): _timestamps,
    (_HELLO_12, Extension.ENCRYPT_THEN_MAC): _empty,
    (_HELLO_12, Extension.EXTENDED_MASTER_SECRET): _empty,
    (_HELLO_12, Extension.RECORD_SIZE_LIMIT): _record_size_limit,
    (_HELLO_12, Extension.SESSION_TICKET): _empty,
    (_HELLO_12, Extension.RENEGOTIATION_INFO): _vector_of(1, least=0),
}
