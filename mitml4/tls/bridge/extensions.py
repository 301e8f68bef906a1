"""Extensions of handshake messages: which message may have which, and what is in them.

`RawExtensions` keeps their bodies as they are; `check_answers` looks at them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.enums import plain_members
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import Extension
from mitml4.protocols.tls.names import is_grease
from mitml4.remember import remembered
from mitml4.tls.bridge.errors import CannotBridge, StaysClosed
from mitml4.tls.bridge.wire import Fields, vector

__all__ = [
    "CERTIFICATE_TYPES",
    "X509",
    "Place",
    "RawExtensions",
    "check_answers",
    "not_relayed",
    "read_alpn",
    "read_cookie",
    "read_items",
    "read_key_share",
    "read_max_fragment_length",
    "read_number",
    "read_ocsp_response",
    "read_record_size_limit",
    "read_uint16",
    "read_uint16s",
    "read_vector",
]

CERTIFICATE_TYPES: Final = (Extension.CLIENT_CERTIFICATE_TYPE, Extension.SERVER_CERTIFICATE_TYPE)
X509: Final = b"\0"  # RFC 7250 §3
"""The body of such an answer, if it chooses what there is without it."""
_OCSP: Final = 1  # RFC 6066 §8
_UNCOMPRESSED: Final = 0  # RFC 8422 §5.1.2
_MIN_RECORD_SIZE: Final = 64  # RFC 8449 §4
_FRAGMENT_LENGTHS: Final = (1, 2, 3, 4)  # RFC 6066 §4
_ECH_CONFIRMATION_BYTES: Final = 8  # RFC 9849 §5
_HEAD: Final = struct.Struct(">HH")
"""The type of an extension, and the length of its body."""
_REMEMBERED: Final = 64
_MAX_REMEMBERED_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class RawExtensions:
    """Extensions in the order of the wire: type and body of each, no type twice."""

    items: tuple[tuple[int, bytes], ...] = ()
    is_present: bool = True
    """Whether there is a list at all. Up to TLS 1.2 a ServerHello may end before it."""

    @classmethod
    def read(cls, fields: Fields) -> RawExtensions:
        """The list with its length. Raises TlsError: DECODE_ERROR, or ILLEGAL_PARAMETER if a type
        is there twice."""
        found = fields.extensions().items()
        return cls(tuple([(kind, fields.between(start, end)) for kind, (start, end) in found]))

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
            tuple([(kind, body if kind == wanted else old) for kind, old in self.items])
        )

    def without(self, *unwanted: int) -> RawExtensions:
        return RawExtensions(tuple([item for item in self.items if item[0] not in unwanted]))

    def encode(self) -> bytes:
        if not self.is_present:
            return b""
        heads_and_bodies = [
            part for kind, body in self.items for part in (_HEAD.pack(kind, len(body)), body)
        ]
        return vector(2, b"".join(heads_and_bodies))


@plain_members
class Place(Enum):
    """The messages that have extensions."""

    SERVER_HELLO = auto()
    HELLO_RETRY_REQUEST = auto()
    ENCRYPTED_EXTENSIONS = auto()
    CERTIFICATE_REQUEST = auto()
    CERTIFICATE = auto()
    NEW_SESSION_TICKET = auto()
    SERVER_HELLO_12 = auto()

    # It is looked up for each extension, and Enum would hash in Python.
    __hash__ = object.__hash__


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


def not_relayed(kind: int) -> CannotBridge:
    """For an answer that was offered, and that the client cannot be told. OpenSSL goes on without
    an extension of this module; what any other one changes is not known."""
    reason = f"extension {kind}"
    return CannotBridge(reason) if kind in _PLACES else StaysClosed(reason)


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


def read_number(body: bytes, what: str, read: Callable[[Fields], int]) -> int:
    """A body that is one number."""
    fields = Fields(body, what)
    number = read(fields)
    fields.end()
    return number


def read_vector(body: bytes, what: str, width: int, *, least: int) -> bytes:
    """A body that is one vector."""
    fields = Fields(body, what)
    content = fields.vector(width, least=least)
    fields.end()
    return content


def read_uint16(body: bytes) -> int:
    if len(body) == 2:
        return body[0] << 8 | body[1]
    return read_number(body, "extension", Fields.uint16)


def _one_uint8(body: bytes) -> int:
    return read_number(body, "extension", Fields.uint8)


def _empty(body: bytes) -> None:
    Fields(body, "extension without content").end()


def read_uint16s(body: bytes) -> tuple[int, ...]:
    fields = Fields(body, "list of numbers")
    numbers = fields.uint16s(2)
    fields.end()
    return numbers


def read_key_share(body: bytes) -> tuple[int, bytes]:
    length = len(body)
    if length > 4 and length == 4 + (body[2] << 8 | body[3]):
        return body[0] << 8 | body[1], body[4:]
    fields = Fields(body, "key_share")
    group = fields.uint16()
    key = fields.vector(2, least=1)
    fields.end()
    return group, key


def read_cookie(body: bytes) -> bytes:
    return read_vector(body, "cookie", 2, least=1)


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def _alpn(body: bytes) -> bytes:
    """RFC 7301 §3.1: the list "MUST contain exactly one" name."""
    fields = Fields(body, "application_layer_protocol_negotiation")
    names = fields.fields(2)
    fields.end()
    name = names.vector(1, least=1)
    names.end()
    return name


def read_alpn(extensions: RawExtensions) -> bytes | None:
    body = extensions.get(Extension.ALPN)
    return None if body is None else _alpn(body)


def read_record_size_limit(body: bytes) -> int:
    """RFC 8449 §4: "MUST treat receipt of a smaller value as a fatal error and generate an
    "illegal_parameter" alert". A higher one than the version's maximum is allowed of clients only;
    of a server too it has the meaning of the maximum."""
    limit = read_uint16(body)
    if limit < _MIN_RECORD_SIZE:
        raise TlsError(Alert.ILLEGAL_PARAMETER, f"a record_size_limit of {limit}")
    return limit


def read_max_fragment_length(body: bytes) -> int:
    code = _one_uint8(body)
    if code not in _FRAGMENT_LENGTHS:
        raise TlsError(Alert.ILLEGAL_PARAMETER, f"a max_fragment_length of {code}")
    return code


def _point_formats(body: bytes) -> None:
    """RFC 8422 §5.2: the list of a server has the uncompressed format."""
    if _UNCOMPRESSED not in read_vector(body, "ec_point_formats", 1, least=1):
        raise TlsError(Alert.ILLEGAL_PARAMETER, "no uncompressed points")


def read_ocsp_response(body: bytes) -> bytes:
    """Of a CertificateStatus (RFC 6066 §8), which TLS 1.3 has in an extension."""
    fields = Fields(body, "CertificateStatus")
    if (kind := fields.uint8()) != _OCSP:
        raise TlsError(Alert.ILLEGAL_PARAMETER, f"a CertificateStatus of type {kind}")
    response = fields.vector(3, least=1)
    fields.end()
    return response


def _timestamps(body: bytes) -> None:
    """RFC 6962 §3.3: a list of at least one, none of which is empty."""
    read_items(Fields(read_vector(body, "signed_certificate_timestamp", 2, least=1), "list"))


def read_items(listed: Fields) -> tuple[bytes, ...]:
    """Vectors with a length of two bytes, none of which is empty."""
    items = []
    while listed:
        items.append(listed.vector(2, least=1))
    return tuple(items)


def _authorities(body: bytes) -> None:
    """RFC 8446 §4.2.4: at least one name."""
    read_items(Fields(read_vector(body, "certificate_authorities", 2, least=3), "list"))


def _vector_of(width: int, least: int) -> Callable[[bytes], bytes]:
    return lambda body: read_vector(body, "extension", width, least=least)


def _exactly(count: int) -> Callable[[bytes], None]:
    def read(body: bytes) -> None:
        fields = Fields(body, "extension")
        fields.take(count)
        fields.end()

    return read


_BODIES: Final[dict[tuple[Place, int], Callable[[bytes], object]]] = {
    (_HELLO, Extension.SUPPORTED_VERSIONS): read_uint16,
    (_HELLO, Extension.KEY_SHARE): read_key_share,
    (_HELLO, Extension.PRE_SHARED_KEY): read_uint16,
    (_RETRY, Extension.SUPPORTED_VERSIONS): read_uint16,
    (_RETRY, Extension.KEY_SHARE): read_uint16,
    (_RETRY, Extension.COOKIE): read_cookie,
    (_RETRY, Extension.ENCRYPTED_CLIENT_HELLO): _exactly(_ECH_CONFIRMATION_BYTES),
    (_ENCRYPTED, Extension.SERVER_NAME): _empty,
    (_ENCRYPTED, Extension.MAX_FRAGMENT_LENGTH): read_max_fragment_length,
    (_ENCRYPTED, Extension.SUPPORTED_GROUPS): read_uint16s,
    (_ENCRYPTED, Extension.ALPN): _alpn,
    (_ENCRYPTED, Extension.CLIENT_CERTIFICATE_TYPE): _one_uint8,
    (_ENCRYPTED, Extension.SERVER_CERTIFICATE_TYPE): _one_uint8,
    (_ENCRYPTED, Extension.RECORD_SIZE_LIMIT): read_record_size_limit,
    (_ENCRYPTED, Extension.EARLY_DATA): _empty,
    (_ENCRYPTED, Extension.ENCRYPTED_CLIENT_HELLO): _vector_of(2, least=1),
    (_REQUEST, Extension.SIGNATURE_ALGORITHMS): read_uint16s,
    (_REQUEST, Extension.SIGNATURE_ALGORITHMS_CERT): read_uint16s,
    (_REQUEST, Extension.CERTIFICATE_AUTHORITIES): _authorities,
    (_REQUEST, Extension.COMPRESS_CERTIFICATE): _vector_of(1, least=2),
    (_CERTIFICATE, Extension.STATUS_REQUEST): read_ocsp_response,
    (_CERTIFICATE, Extension.SIGNED_CERTIFICATE_TIMESTAMP): _timestamps,
    (_TICKET, Extension.EARLY_DATA): _exactly(4),
    (_HELLO_12, Extension.SERVER_NAME): _empty,
    (_HELLO_12, Extension.MAX_FRAGMENT_LENGTH): read_max_fragment_length,
    (_HELLO_12, Extension.STATUS_REQUEST): _empty,
    (_HELLO_12, Extension.EC_POINT_FORMATS): _point_formats,
    (_HELLO_12, Extension.ALPN): _alpn,
    (_HELLO_12, Extension.SIGNED_CERTIFICATE_TIMESTAMP): _timestamps,
    (_HELLO_12, Extension.ENCRYPT_THEN_MAC): _empty,
    (_HELLO_12, Extension.EXTENDED_MASTER_SECRET): _empty,
    (_HELLO_12, Extension.RECORD_SIZE_LIMIT): read_record_size_limit,
    (_HELLO_12, Extension.SESSION_TICKET): _empty,
    (_HELLO_12, Extension.RENEGOTIATION_INFO): _vector_of(1, least=0),
}
