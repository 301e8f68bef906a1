"""ClientHello and ServerHello, which both sides of a TLS connection send in plain text.

`parse_client_hello` and `parse_server_hello` read them from the start of a stream, however it is
split into segments and records. Everything is kept in the order of the wire, including GREASE (RFC
8701), because a mirrored handshake and a fingerprint need that order.
"""

from __future__ import annotations

from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.tls import hello_fields as fields
from mitml4.protocols.tls.names import without_grease
from mitml4.protocols.tls.records import (
    MAX_RECORD,
    HandshakeType,
    Message,
    MessageReader,
    RecordType,
)

__all__ = [
    "RETRY_RANDOM",
    "ClientHello",
    "EncryptedExtensions",
    "Extension",
    "ServerHello",
    "parse_client_hello",
    "parse_server_hello",
]


class Extension:
    """The extension types that are read or written
    (https://www.iana.org/assignments/tls-extensiontype-values)."""

    SERVER_NAME: Final = 0  # RFC 6066 §3
    MAX_FRAGMENT_LENGTH: Final = 1  # RFC 6066 §4
    TRUNCATED_HMAC: Final = 4  # RFC 6066 §7
    STATUS_REQUEST: Final = 5  # RFC 6066 §8
    SUPPORTED_GROUPS: Final = 10  # RFC 8422 §5.1.1, RFC 8446 §4.2.7
    EC_POINT_FORMATS: Final = 11  # RFC 8422 §5.1.2
    SIGNATURE_ALGORITHMS: Final = 13  # RFC 8446 §4.2.3
    USE_SRTP: Final = 14  # RFC 5764
    HEARTBEAT: Final = 15  # RFC 6520
    ALPN: Final = 16  # RFC 7301
    SIGNED_CERTIFICATE_TIMESTAMP: Final = 18  # RFC 6962 §3.3
    CLIENT_CERTIFICATE_TYPE: Final = 19  # RFC 7250
    SERVER_CERTIFICATE_TYPE: Final = 20  # RFC 7250
    PADDING: Final = 21  # RFC 7685
    ENCRYPT_THEN_MAC: Final = 22  # RFC 7366
    EXTENDED_MASTER_SECRET: Final = 23  # RFC 7627
    COMPRESS_CERTIFICATE: Final = 27  # RFC 8879
    RECORD_SIZE_LIMIT: Final = 28  # RFC 8449
    CERT_WITH_EXTERN_PSK: Final = 33  # RFC 8773
    DELEGATED_CREDENTIAL: Final = 34  # RFC 9345
    SESSION_TICKET: Final = 35  # RFC 5077
    PRE_SHARED_KEY: Final = 41  # RFC 8446 §4.2.11
    EARLY_DATA: Final = 42  # RFC 8446 §4.2.10
    SUPPORTED_VERSIONS: Final = 43  # RFC 8446 §4.2.1
    COOKIE: Final = 44  # RFC 8446 §4.2.2
    PSK_KEY_EXCHANGE_MODES: Final = 45  # RFC 8446 §4.2.9
    CERTIFICATE_AUTHORITIES: Final = 47  # RFC 8446 §4.2.4
    OID_FILTERS: Final = 48  # RFC 8446 §4.2.5
    POST_HANDSHAKE_AUTH: Final = 49  # RFC 8446 §4.2.6
    SIGNATURE_ALGORITHMS_CERT: Final = 50  # RFC 8446 §4.2.3
    KEY_SHARE: Final = 51  # RFC 8446 §4.2.8
    TRANSPARENCY_INFO: Final = 52  # RFC 9162
    TICKET_REQUEST: Final = 58  # RFC 9149
    DNSSEC_CHAIN: Final = 59  # RFC 9102
    TLS_FLAGS: Final = 62  # draft-ietf-tls-tlsflags
    NEXT_PROTOCOL: Final = 13172  # draft-agl-tls-nextprotoneg
    APPLICATION_SETTINGS_OLD: Final = 17513  # draft-vvv-tls-alps, with its first number
    APPLICATION_SETTINGS: Final = 17613  # draft-vvv-tls-alps
    CHANNEL_ID: Final = 30032  # draft-balfanz-tls-channelid
    TRUST_ANCHORS: Final = 51764  # draft-ietf-tls-trust-anchor-ids
    ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D  # RFC 9849
    RENEGOTIATION_INFO: Final = 0xFF01  # RFC 5746


# RFC 8446 §4.1.3: the SHA-256 of "HelloRetryRequest", in the place of the server's random.
RETRY_RANDOM: Final = bytes.fromhex(
    "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """A ClientHello as sent (RFC 8446 §4.1.2). Numbers are those of the wire, in its order.

    An absent extension gives an empty tuple, except for `alpn`: None is an absent extension, and an
    empty tuple an empty list. In an SSLv2-compatible hello (RFC 5246 §E.2) `sslv2` is true, cipher
    specs of SSLv2 alone keep their three bytes, and there are no extensions.
    """

    legacy_version: int
    random: bytes
    session_id: bytes = b""
    cipher_suites: tuple[int, ...]
    compression: tuple[int, ...] = (0,)
    extensions: tuple[int, ...] = ()
    sni: str | None = None
    more_names: tuple[str, ...] = ()
    """Names after the SNI in its list; RFC 6066 §3 allows none."""
    alpn: tuple[bytes, ...] | None = None
    supported_versions: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    signature_algorithms: tuple[int, ...] = ()
    signature_algorithms_cert: tuple[int, ...] = ()
    key_shares: tuple[int, ...] = ()
    """The groups of the keys that were sent."""
    point_formats: tuple[int, ...] = ()
    certificate_types: tuple[int, ...] = ()
    """What the server may show (RFC 7250)."""
    sslv2: bool = False
    wire_length: int = 0
    """Bytes of the stream up to the end of the hello's last record."""

    @property
    def server_names(self) -> tuple[str, ...]:
        return () if self.sni is None else (self.sni, *self.more_names)

    def has(self, extension: int) -> bool:
        return extension in self.extensions

    @property
    def versions(self) -> tuple[int, ...]:
        """The offered versions, without GREASE: the list, or else the highest version alone."""
        return without_grease(self.supported_versions) or (self.legacy_version,)

    @property
    def early_data(self) -> bool:
        return self.has(Extension.EARLY_DATA)

    @property
    def psk(self) -> bool:
        return self.has(Extension.PRE_SHARED_KEY)

    @property
    def status_request(self) -> bool:
        return self.has(Extension.STATUS_REQUEST)

    @property
    def takes_only_x509(self) -> bool:
        """Whether the server has nothing else to show than a certificate of X.509."""
        return not any(self.certificate_types)  # RFC 7250 §3: that is 0

    @property
    def ech(self) -> bool:
        """Whether the hello has ECH. Real ECH and GREASE look alike on purpose (RFC 9849 §6.2)."""
        return self.has(Extension.ENCRYPTED_CLIENT_HELLO)

    @classmethod
    def of(cls, message: Message, *, wire_length: int = 0) -> ClientHello:
        """From a message of type 1. Raises ProtocolError."""
        if message.record_type is RecordType.SSLV2:
            return _sslv2_client_hello(message.body, wire_length)
        return _client_hello(message.body, wire_length)

    @classmethod
    def of_datagrams(cls, body: bytes) -> ClientHello:
        """From the body of a ClientHello of DTLS (RFC 6347 §4.2.1). Raises ProtocolError."""
        return _client_hello(body, 0, datagrams=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHello:
    """A ServerHello or HelloRetryRequest as sent (RFC 8446 §4.1.3)."""

    legacy_version: int
    random: bytes
    session_id: bytes
    cipher_suite: int
    compression: int
    extensions: tuple[int, ...] = ()
    selected_version: int | None = None
    alpn: bytes | None = None
    """In plain text up to TLS 1.2 only."""
    group: int | None = None
    """The group of the key share (TLS 1.3)."""
    psk: bool = False

    @property
    def version(self) -> int:
        return self.selected_version or self.legacy_version

    @property
    def is_retry(self) -> bool:
        """Whether it is a HelloRetryRequest, after which another ClientHello and ServerHello
        follow."""
        return self.random == RETRY_RANDOM

    @property
    def is_tls13(self) -> bool:
        """Whether everything after it is encrypted (drafts of TLS 1.3 are 0x7fNN)."""
        return self.version >= 0x0304

    @classmethod
    def of(cls, message: Message) -> ServerHello:
        """From a message of type 2. Raises ProtocolError."""
        return _server_hello(message.body)

    @classmethod
    def of_datagrams(cls, body: bytes) -> ServerHello:
        """From the body of a ServerHello of DTLS. Raises ProtocolError."""
        return _server_hello(body, datagrams=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptedExtensions:
    """The answer of a TLS 1.3 server after its ServerHello (RFC 8446 §4.3.1)."""

    alpn: bytes | None = None
    early_data: bool = False
    """Whether the server accepts the client's early data."""

    @classmethod
    def of(cls, message: Message) -> EncryptedExtensions:
        """From a message of type 8. Raises ProtocolError."""
        types, found = fields.extensions(fields.Cursor(message.body))
        alpn = fields.alpn(found.get(Extension.ALPN))
        return cls(alpn=alpn[0] if alpn else None, early_data=Extension.EARLY_DATA in types)


def parse_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello at the start of a client's stream; None as long as it is not whole.

    `data` is the raw stream from its first record on. At most MAX_PEEK bytes of it are read, and
    bytes after the hello are ignored. Raises ProtocolError if it is broken, is something else, or
    is not whole within MAX_PEEK.
    """
    if body := _alone_in_its_record(data):
        return _client_hello(body, len(body) + _HEADERS)
    reader = MessageReader(max_message=MAX_PEEK)
    for message in reader.feed(data[:MAX_PEEK]):
        if not _is(message, HandshakeType.CLIENT_HELLO):
            raise ProtocolError("TLS does not begin with a ClientHello")
        return ClientHello.of(message, wire_length=reader.consumed)
    if len(data) >= MAX_PEEK:
        raise ProtocolError(f"a ClientHello of more than {MAX_PEEK} bytes")
    return None


def parse_server_hello(data: bytes) -> ServerHello | None:
    """The same for a server's stream and its ServerHello (or HelloRetryRequest).

    Raises ProtocolError also if the server begins with an alert.
    """
    reader = MessageReader(max_message=MAX_PEEK)
    for message in reader.feed(data[:MAX_PEEK]):
        if message.record_type is not RecordType.HANDSHAKE or not _is(
            message, HandshakeType.SERVER_HELLO
        ):
            raise ProtocolError("TLS does not continue with a ServerHello")
        return ServerHello.of(message)
    if len(data) >= MAX_PEEK:
        raise ProtocolError(f"a ServerHello of more than {MAX_PEEK} bytes")
    return None


def _alone_in_its_record(data: bytes) -> bytes | None:
    """The body of the ClientHello if it has the first record to itself and is whole, as most are;
    None if it may be otherwise."""
    start = data[:_HEADERS]
    if len(start) < _HEADERS or start[:2] != b"\x16\x03" or start[5] != HandshakeType.CLIENT_HELLO:
        return None
    record, length = start[3] << 8 | start[4], int.from_bytes(start[6:], "big")
    end = _HEADERS + length
    if record != 4 + length or record > MAX_RECORD or len(data) < end:
        return None
    return data[_HEADERS:end]


_HEADERS: Final = 9
"""Bytes of the headers of a record and of a handshake message."""


def _is(message: Message, kind: HandshakeType) -> bool:
    return (
        message.record_type in (RecordType.HANDSHAKE, RecordType.SSLV2)
        and message.handshake_type == kind
    )


def _client_hello(body: bytes, wire_length: int, *, datagrams: bool = False) -> ClientHello:
    cursor = fields.Cursor(body)
    version = cursor.number(2)
    if version >> 8 not in ((0xFE,) if datagrams else (3, 0x7F)):
        raise ProtocolError(f"a ClientHello of version 0x{version:04x}")
    random = cursor.take(32)
    session_id = cursor.vector(1)
    if datagrams:
        cursor.vector(1)  # the cookie
    ciphers = fields.numbers(cursor.vector(2), 2)
    compression = tuple(cursor.vector(1))
    types, found = fields.extensions(cursor)
    names = fields.read(fields.host_names, found.get(Extension.SERVER_NAME))
    return ClientHello(
        legacy_version=version,
        random=random,
        session_id=session_id,
        cipher_suites=ciphers,
        compression=compression,
        extensions=types,
        sni=names[0] if names else None,
        more_names=names[1:],
        alpn=fields.alpn(found.get(Extension.ALPN)),
        supported_versions=fields.read(fields.versions, found.get(Extension.SUPPORTED_VERSIONS)),
        groups=fields.read(fields.uint16s, found.get(Extension.SUPPORTED_GROUPS)),
        signature_algorithms=fields.read(fields.uint16s, found.get(Extension.SIGNATURE_ALGORITHMS)),
        signature_algorithms_cert=fields.read(
            fields.uint16s, found.get(Extension.SIGNATURE_ALGORITHMS_CERT)
        ),
        key_shares=fields.read(fields.key_shares, found.get(Extension.KEY_SHARE)),
        point_formats=fields.read(fields.uint8s, found.get(Extension.EC_POINT_FORMATS)),
        certificate_types=fields.read(fields.uint8s, found.get(Extension.SERVER_CERTIFICATE_TYPE)),
        wire_length=wire_length,
    )


def _sslv2_client_hello(body: bytes, wire_length: int) -> ClientHello:
    """RFC 5246 §E.2 (and the SSL 2.0 draft): first the lengths, then the fields."""
    cursor = fields.Cursor(body)
    version = cursor.number(2)
    specs, session_id, challenge = (cursor.number(2) for _ in range(3))
    if specs % 3 or version not in (0x0002, *range(0x0300, 0x0304)):
        raise ProtocolError("a broken SSLv2 ClientHello")
    ciphers = fields.numbers(cursor.take(specs), 3)
    return ClientHello(
        legacy_version=version,
        session_id=cursor.take(session_id),
        random=cursor.take(challenge),
        cipher_suites=ciphers,
        sslv2=True,
        wire_length=wire_length,
    )


def _server_hello(body: bytes, *, datagrams: bool = False) -> ServerHello:
    cursor = fields.Cursor(body)
    version = cursor.number(2)
    if version >> 8 not in ((0xFE,) if datagrams else (3, 0x7F)):
        raise ProtocolError(f"a ServerHello of version 0x{version:04x}")
    random = cursor.take(32)
    # Drafts 16 to 21 of TLS 1.3 put their number here and lacked these two fields.
    early_draft = version >> 8 == 0x7F
    session_id = b"" if early_draft else cursor.vector(1)
    cipher = cursor.number(2)
    compression = 0 if early_draft else cursor.number(1)
    types, found = fields.extensions(cursor)
    selected = found.get(Extension.SUPPORTED_VERSIONS)
    alpn = fields.alpn(found.get(Extension.ALPN))
    share = found.get(Extension.KEY_SHARE)
    return ServerHello(
        legacy_version=version,
        random=random,
        session_id=session_id,
        cipher_suite=cipher,
        compression=compression,
        extensions=types,
        selected_version=fields.Cursor(selected).number(2) if selected is not None else None,
        alpn=alpn[0] if alpn else None,
        group=fields.Cursor(share).number(2) if share is not None else None,
        psk=Extension.PRE_SHARED_KEY in types,
    )
