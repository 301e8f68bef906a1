"""TLS of a capture, opened with the secrets of a key log: a conversation that gives plaintext.

Theory of operation. What stands in the clear is read by the conversation that reads TLS without
secrets (`TlsConversation`), and where the secrets do not know the connection by its first record
that takes one, that conversation simply goes on. Where they do, whole records are taken (PEEK, so
that half a record waits where all waiting bytes are counted), each side's are opened with its
protection of the moment, and what is inside goes to `plaintext`, or changes the protection:

    TLS 1.3   ServerHello ─► handshake secrets ─► Finished ─► traffic secrets ─► KeyUpdate ─► …
              early data: its own secret up to EndOfEarlyData, or skipped
    TLS 1.2   ChangeCipherSpec ─► keys of the master secret

The client's side is held until the server has said what its next record is protected with. A
record that does not authenticate is a ProtocolError, and the end of it: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Any, ClassVar, Final

from mitml4.capture.tls.secrets import (
    CLIENT_EARLY,
    CLIENT_HANDSHAKE,
    CLIENT_TRAFFIC,
    MASTER,
    SERVER_HANDSHAKE,
    SERVER_TRAFFIC,
    Secrets,
)
from mitml4.crypto.records import (
    NotAuthentic,
    Opener,
    Protection13,
    Record,
    cbc_opener,
    protection_1_2,
    protection_1_3,
)
from mitml4.crypto.suites import CbcSuite, Suite, cbc_suite_of, suite_of
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    MIRROR,
    PAUSE,
    PEEK,
    Conversation,
    Direction,
)
from mitml4.protocols.tls.alerts import alert_name
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.hello import ClientHello, EncryptedExtensions, Extension, ServerHello
from mitml4.protocols.tls.names import cipher_name, version_name
from mitml4.protocols.tls.protocol import TlsConversation, TlsDetails
from mitml4.protocols.tls.records import (
    MAX_RECORD,
    HandshakeType,
    Message,
    MessageReader,
    RecordType,
)

__all__ = ["Plaintext", "TlsDecryption"]

_TLS_1_2: Final = 0x0303
_TLS_1_3: Final = 0x0304
_MAX_SKIPPED_BYTES: Final = 1 << 18
"""How much early data may go by that there is no secret for."""


@dataclass(frozen=True, slots=True)
class Plaintext:
    """What one sender's record had inside, or that there is something missing, or no more."""

    direction: Direction
    data: bytes = b""
    lost: int = 0
    """Bytes that stand here and could not be opened."""
    ended: bool = False


@dataclass(slots=True)
class _Side:
    """What one sender's records are protected with, and the messages in them."""

    protection: Opener | None = None
    due: str | None = None
    """Of which secret the next protected record's is; only then does it have to be there."""
    in_handshake: bool = True
    reader: MessageReader = field(default_factory=MessageReader)
    skipped: int | None = None
    """Bytes of early data that were skipped; None where there can be none (any more)."""


@dataclass(slots=True, kw_only=True)
class TlsDecryption(Conversation):
    """Follows TLS and opens it. What was inside is added to `plaintext`, in order."""

    name: ClassVar[str] = "tls"

    secrets: Secrets
    plaintext: list[Plaintext] = field(default_factory=list)
    opened: bool = False
    """Whether a record was."""
    _hellos: TlsConversation = field(init=False)
    _closed: bool = False
    """There are no secrets, or nothing to open: only what is in the clear is read."""
    _client: Direction = Direction.UP
    _hello: Message | None = None
    """The ClientHello, which is parsed only where the connection is known."""
    _known: Mapping[str, bytes] = field(default_factory=dict)
    _server: ServerHello | None = None
    _suite: Suite | CbcSuite | None = None
    _takes_early_data: bool = False
    _learned: dict[str, Any] = field(default_factory=dict)
    _sides: dict[Direction, _Side] = field(
        default_factory=lambda: {direction: _Side() for direction in Direction}
    )

    def __post_init__(self) -> None:
        self._hellos = TlsConversation(context=self.context)

    @property
    def may_open(self) -> bool:
        """Whether it may be opened, or was."""
        return not self._closed

    def feed(self, direction: Direction, data: bytes) -> int:
        if self._closed:
            self._hellos.feed(direction, data)
            self._do_as_the_hellos()
            return len(data)
        if self._hello is None and data[0] & 0x80:
            self._close()  # SSLv2's header
        taken = 0
        while self.directive(direction) is PEEK and (record := _record(data, taken)):
            self._take(direction, record)
            taken += len(record.raw)
        return taken

    def end(self, direction: Direction) -> None:
        if self._server is None or self.directive(self._client) is PAUSE:
            self._close()
        self._hellos.end(direction)
        self.details_ready = True

    def details(self) -> TlsDetails:
        return replace(self._hellos.details(), **self._learned)

    # Records

    def _take(self, direction: Direction, record: Record) -> None:
        side = self._sides[direction]
        if side.due and record.kind == RecordType.APPLICATION_DATA:
            if not self._know():
                self._close()
                return
            side.protection, side.due = self._protection_1_3(side.due), None
        # RFC 8446 §5.2: what is protected has application data's type; the rest is as it looks.
        looks_clear = not self._is_tls12() and record.kind != RecordType.APPLICATION_DATA
        if side.protection is None or looks_clear:
            self._take_clear(direction, record)
        else:
            self._take_protected(direction, record, side.protection)

    def _take_clear(self, direction: Direction, record: Record) -> None:
        if self._hellos.directive(direction) is MIRROR:
            self._hellos.feed(direction, record.raw)
        for message in self._sides[direction].reader.feed(record.raw):
            self._take_clear_message(direction, message)

    def _take_clear_message(self, direction: Direction, message: Message) -> None:
        match message.record_type:
            case RecordType.HANDSHAKE if message.handshake_type == HandshakeType.CLIENT_HELLO:
                self._take_client_hello(direction, message)
            case RecordType.HANDSHAKE if message.handshake_type == HandshakeType.SERVER_HELLO:
                self._take_server_hello(direction, ServerHello.of(message))
            case RecordType.HANDSHAKE if self._hello is None:
                self._close()
            case RecordType.CHANGE_CIPHER_SPEC if self._is_tls12() and self._know():
                self._change_cipher(direction)
            case RecordType.CHANGE_CIPHER_SPEC if self._is_tls12():
                self._close()
            case RecordType.ALERT if self._hello is None or _is_fatal(message.body):
                self._close()
            case RecordType.APPLICATION_DATA if not self._is_being_retried():
                self._close()

    def _take_protected(self, direction: Direction, record: Record, protection: Opener) -> None:
        side = self._sides[direction]
        try:
            kind, content = protection.open(record)
        except NotAuthentic:
            if side.skipped is None or side.skipped > _MAX_SKIPPED_BYTES:
                sender = "client" if direction is self._client else "server"
                raise ProtocolError(
                    f"the secrets do not fit: a record of the {sender} does not authenticate"
                ) from None
            side.skipped += len(record.raw)
            return
        self.opened = True
        self.details_ready |= self._is_tls12() and self._hellos.details_ready
        if side.skipped is not None:
            self._end_early_data(direction, side)
        if kind == RecordType.APPLICATION_DATA:
            if content:
                self.plaintext.append(Plaintext(direction, content))
            return
        header = bytes([kind]) + record.raw[1:3] + len(content).to_bytes(2, "big")
        for message in side.reader.feed(header + content):
            self._take_protected_message(direction, message)

    def _take_protected_message(self, direction: Direction, message: Message) -> None:
        match message.record_type:
            case RecordType.HANDSHAKE if self._is_tls12():
                if message.handshake_type == HandshakeType.CLIENT_HELLO:
                    raise ProtocolError("a renegotiated connection is not opened any further")
            case RecordType.HANDSHAKE:
                self._take_handshake(direction, message)
            case RecordType.ALERT:
                self._take_alert(direction, message.body)

    def _take_alert(self, direction: Direction, body: bytes) -> None:
        """Either way the sender sends no more (RFC 8446 §6)."""
        if _is_fatal(body) and not self.details_ready:
            sender = "client" if direction is Direction.UP else "server"
            self._learned["alert"] = f"{sender}: {alert_name(body[1])}"
            self.details_ready = True
        if _is_fatal(body) or body[1:] == b"\0":
            self.plaintext.append(Plaintext(direction, ended=True))

    # The handshake

    def _take_client_hello(self, direction: Direction, hello: Message) -> None:
        if self._hello and not self._is_being_retried():
            self._close()
            return
        self._client, self._hello = direction, hello
        if self._know():
            self.set_directive(direction, PAUSE)

    def _take_server_hello(self, direction: Direction, server: ServerHello) -> None:
        answered = self._server and not self._server.is_retry
        if self._hello is None or direction is self._client or answered:
            self._close()
            return
        self._server = server
        if server.is_retry:
            self._sides[self._client] = _Side()
            self.set_directive(self._client, PEEK)
            return
        self._suite = suite_of(server.cipher_suite)
        if not self._suite and not server.is_tls13:
            self._suite = cbc_suite_of(server.cipher_suite)
        if self._suite is None or server.version not in (_TLS_1_2, _TLS_1_3) or server.compression:
            self._leave(server)
            return
        if server.is_tls13:
            self._sides[direction].due = SERVER_HANDSHAKE
        else:
            self.set_directive(self._client, PEEK)

    def _leave(self, server: ServerHello) -> None:
        """It cannot be opened, which is worth saying where there are secrets for it."""
        if self._know():
            name = f"{version_name(server.version)} with {cipher_name(server.cipher_suite)}"
            raise ProtocolError(f"{name} cannot be opened, whatever the secrets")
        self._close()

    def _take_handshake(self, direction: Direction, message: Message) -> None:
        """A message of TLS 1.3 behind the ServerHello."""
        side = self._sides[direction]
        of_client = direction is self._client
        match message.handshake_type:
            case HandshakeType.KEY_UPDATE if isinstance(side.protection, Protection13):
                side.protection = side.protection.updated()
            case HandshakeType.END_OF_EARLY_DATA if of_client and side.in_handshake:
                side.due = CLIENT_HANDSHAKE
            case HandshakeType.FINISHED if side.in_handshake:
                side.in_handshake = False
                side.due = CLIENT_TRAFFIC if of_client else SERVER_TRAFFIC
                self.details_ready |= not of_client
            case HandshakeType.ENCRYPTED_EXTENSIONS if not of_client and side.in_handshake:
                self._take_extensions(EncryptedExtensions.of(message))
            case HandshakeType.CERTIFICATE if not of_client:
                leaf = CertificateDetails.of_der(_first_certificate(message.body))
                self._learned["certificate"] = leaf

    def _take_extensions(self, extensions: EncryptedExtensions) -> None:
        """From here on it is known what the client's next record is protected with."""
        assert self._hello
        self._learned["alpn"] = extensions.alpn
        self._takes_early_data = extensions.early_data
        side = self._sides[self._client]
        if extensions.early_data and CLIENT_EARLY in self._known:
            side.due = CLIENT_EARLY
        else:
            side.due = CLIENT_HANDSHAKE
            side.skipped = 0 if ClientHello.of(self._hello).early_data else None
        self.set_directive(self._client, PEEK)

    def _end_early_data(self, direction: Direction, side: _Side) -> None:
        """The first record behind it was opened; what was taken of it is missing inside."""
        if side.skipped and self._takes_early_data:
            self.plaintext.append(Plaintext(direction, lost=side.skipped))
        side.skipped = None

    def _change_cipher(self, direction: Direction) -> None:
        assert self._hello
        assert self._server
        assert self._suite
        opener: Callable[..., Opener]
        if isinstance(self._suite, Suite):
            opener = partial(protection_1_2, self._suite)
        else:
            encrypts_then_mac = Extension.ENCRYPT_THEN_MAC in self._server.extensions
            opener = partial(cbc_opener, self._suite, encrypt_then_mac=encrypts_then_mac)
        self._sides[direction].protection = opener(
            self._secret(MASTER),
            client_random=_random(self._hello),
            server_random=self._server.random,
            of_client=direction is self._client,
        )

    def _protection_1_3(self, label: str) -> Opener:
        assert isinstance(self._suite, Suite)
        return protection_1_3(self._suite, self._secret(label))

    def _know(self) -> bool:
        """Whether there are secrets by now: a capture may show them behind the hellos."""
        if self._hello and not self._known:
            self._known = self.secrets.of(_random(self._hello)) or {}
        return bool(self._known)

    def _secret(self, label: str) -> bytes:
        if label not in self._known:
            raise ProtocolError(f"the secrets lack the connection's {label}")
        return self._known[label]

    def _is_tls12(self) -> bool:
        return self._server is not None and not self._server.is_tls13

    def _is_being_retried(self) -> bool:
        return self._server is not None and self._server.is_retry

    # Without secrets

    def _close(self) -> None:
        self._closed = True
        self._do_as_the_hellos()

    def _do_as_the_hellos(self) -> None:
        self.up, self.down = self._hellos.up, self._hellos.down
        self.details_ready = self._hellos.details_ready


def _record(data: bytes, at: int) -> Record | None:
    """The record that begins here, once it is whole."""
    if len(data) < at + 5:
        return None
    length = int.from_bytes(data[at + 3 : at + 5], "big")
    if not 20 <= data[at] <= 24 or data[at + 1] != 3 or length > MAX_RECORD:
        raise ProtocolError("not a TLS record")
    end = at + 5 + length
    return Record(data[at:end]) if len(data) >= end else None


def _random(hello: Message) -> bytes:
    """RFC 8446 §4.1.2: it stands behind the version."""
    return hello.body[2:34]


def _is_fatal(body: bytes) -> bool:
    fatal = 2
    return len(body) == 2 and body[0] == fatal


def _first_certificate(body: bytes) -> bytes:
    """The leaf's DER in a Certificate message of TLS 1.3 (RFC 8446 §4.4.2): a context, the length
    of the list, and that of its first entry stand before it."""
    at = 1 + body[0] + 3 if body else 0
    return body[at + 3 : at + 3 + int.from_bytes(body[at : at + 3], "big")]
