"""TLS (RFC 8446, RFC 5246 and before): detection, the contents of hellos, and following it
passively.

The layer that intercepts live TLS is elsewhere. This conversation is for connections that are
passed through, and for captures. It reads a copy of the bytes (MIRROR), and so holds none back,
until the handshake is encrypted or over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import ClassVar, Final, Literal

from mitml4.dataclass import dataclass, replace
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    MIRROR,
    Conversation,
    Details,
    Direction,
    Directive,
    LayerContext,
    Opening,
    Protocol,
    Target,
    Verdict,
)
from mitml4.protocols.tls.alerts import alert_name, is_alert
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.client_certificate import answers_empty
from mitml4.protocols.tls.fingerprints import ja3, ja3s, ja4, ja4s
from mitml4.protocols.tls.hello import ClientHello, ServerHello
from mitml4.protocols.tls.names import (
    cipher_name,
    group_name,
    version_name,
    version_names,
)
from mitml4.protocols.tls.records import (
    MAX_RECORD,
    HandshakeType,
    Message,
    MessageReader,
    RecordType,
)
from mitml4.regex import regex

__all__ = ["PROTOCOL", "CertificateDetails", "TlsConversation", "TlsDetails", "detect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsDetails(Details):
    """Versions, ciphers and groups have OpenSSL's names. `server_hello`: `exact` if the ClientHello
    that the server got has the client's JA3 and JA4, else what is different in it; null if it was
    not intercepted. `mirrored` and `not_mirrored`: what our certificate has of the server's.
    `handshake_s`: how long the handshake with the server took; where it was not intercepted, as far
    as it can be read.
    """

    sni: str | None = None
    alpn_offered: tuple[bytes, ...] | None = None
    """None: no such extension, or no ClientHello was seen."""
    alpn: bytes | None = None
    version_offered: tuple[str, ...] | None = None
    """In the client's order; a hello without a list has only the highest."""
    version: str | None = None
    cipher: str | None = None
    group: str | None = None
    ja3: str | None = None
    ja4: str | None = None
    ja3s: str | None = None
    ja4s: str | None = None
    ech: Literal["none", "offered"] | None = None
    resumed: bool | None = None
    alert: str | None = None
    """A fatal alert in plain text, with its sender: `server: handshake_failure`."""
    certificate: CertificateDetails | None = None
    server_hello: Literal["exact"] | tuple[str, ...] | None = None
    mirrored: tuple[str, ...] = ()
    not_mirrored: tuple[str, ...] = ()
    passthrough: str | None = None
    """Why it was not intercepted: a policy, `pinned`, `client certificate`, `channel binding`, or
    something that OpenSSL does not support; None if it was."""
    handshake_s: float | None = None

    @classmethod
    def of(cls, hello: ClientHello) -> TlsDetails:
        """Details of what the client offers."""
        return cls().asked(hello)

    def asked(
        self, hello: ClientHello, certificate: CertificateDetails | None = None
    ) -> TlsDetails:
        """These details, with what the client offers; and the certificate of an earlier connection,
        where that is known."""
        return replace(
            self,
            certificate=certificate,
            sni=hello.sni,
            alpn_offered=hello.alpn,
            version_offered=version_names(hello.versions),
            ja3=None if hello.sslv2 else ja3(hello),
            ja4=None if hello.sslv2 else ja4(hello),
            ech="offered" if hello.ech else "none",
        )

    def with_server_hello(self, hello: ServerHello) -> TlsDetails:
        """These details, with what the server chose. A certificate in plain text comes later."""
        return replace(
            self,
            alpn=hello.alpn,
            version=version_name(hello.version),
            cipher=cipher_name(hello.cipher_suite),
            group=None if hello.group is None else group_name(hello.group),
            ja3s=ja3s(hello),
            ja4s=ja4s(hello),
            resumed=hello.psk if hello.is_tls13 else None,
        )


def detect(opening: Opening) -> Verdict:
    """A hello in the client's first record; six bytes of it decide.

    A ClientHello from the server while the client is silent is TLS with reversed roles (FTP in
    active mode): only a ServerHello from the client makes that certain. A capture of one direction
    may show only a ServerHello or an alert, and so may a client that rejects the greeting. A
    capture that begins in the middle shows other records. A live connection that begins so is
    passed through.
    """
    if opening.up:
        verdict = _start(opening.up)
        if verdict is Verdict.MATCH and _SERVER_HELLO.match(opening.up):
            return _answered_start(opening.down)
        incomplete = verdict is Verdict.NEED_MORE and opening.up_ended
        return Verdict.REJECT if incomplete else verdict
    if _start(opening.down) in (Verdict.MATCH, Verdict.LIKELY):
        return Verdict.LIKELY
    return Verdict.REJECT if opening.up_ended and opening.down_ended else Verdict.NEED_MORE


def _answered_start(asked: bytes) -> Verdict:
    """The verdict on a ServerHello from the client: it answers the server, whose bytes may be
    missing in a capture. If these are something else, TLS has begun behind them."""
    return _start(asked) if asked else Verdict.LIKELY


_SERVER_HELLO: Final = regex(rb"\x16\x03[\0-\xff]{3}\x02")


def _start(data: bytes) -> Verdict:
    """The verdict on the first bytes of one side."""
    if data[:1] >= b"\x80":
        return _sslv2_hello_start(data)
    empty = _EMPTY_RECORDS.match(data)
    return _record_start(data[empty.end() :] if empty else data)


# RFC 8446 §5.1 forbids empty records of a handshake; OpenSSL accepts them.
_EMPTY_RECORDS: Final = regex(rb"(?:\x16\x03[\0-\4]\0\0){0,32}")


def _record_start(data: bytes) -> Verdict:
    """The verdict on a record: a hello or, in the middle of a connection, one of the others."""
    length = int.from_bytes(data[3:5], "big")
    fits = (
        data[:1] in (b"", *_TYPES)
        and data[1:2] in (b"", b"\x03")
        and data[2:3] <= b"\x04"
        and (len(data) < 4 or data[3] <= MAX_RECORD >> 8)
        and (len(data) < 5 or 1 <= length <= MAX_RECORD)
    )
    if not fits:
        return Verdict.REJECT
    if len(data) < 6:
        return Verdict.NEED_MORE
    match RecordType(data[0]), length:
        case RecordType.HANDSHAKE, _ if data[5] in _HELLOS:
            # The parser checks the lengths after the sixth byte: with records of one byte they are
            # in other places.
            return Verdict.MATCH
        case RecordType.CHANGE_CIPHER_SPEC, _:
            return Verdict.MATCH if (length, data[5]) == (1, 1) else Verdict.REJECT
        case RecordType.ALERT, 2:
            return _alert_start(data)
        case _:
            return _encrypted_start(data, length)


def _alert_start(data: bytes) -> Verdict:
    """An alert in plain text, from a peer that rejects the other's hello."""
    if data[5] not in (1, 2) or (len(data) > 6 and not is_alert(data[6])):
        return Verdict.REJECT
    return Verdict.MATCH if len(data) > 6 else Verdict.NEED_MORE


def _encrypted_start(data: bytes, length: int) -> Verdict:
    """The verdict on an encrypted record: certain once another of its version follows."""
    if length < _MAC or data[2] > _LAST_OF_RECORDS:
        return Verdict.REJECT
    following = data[5 + length : 8 + length]
    if len(following) < 3:
        return Verdict.LIKELY
    chained = following[:1] in _TYPES and following[1:] == data[1:3]
    return Verdict.MATCH if chained else Verdict.REJECT


_TYPES: Final = (b"\x14", b"\x15", b"\x16", b"\x17")
_HELLOS: Final = (HandshakeType.CLIENT_HELLO, HandshakeType.SERVER_HELLO)
_LAST_OF_RECORDS: Final = 3
"""RFC 8446 §5.1: encrypted records of TLS 1.3 have version 3.3; 3.4 is only in some wrong
hellos."""
_MAC: Final = 16
"""The least that encryption adds (RFC 5246 §6.2.3, RFC 8446 §5.2): no record is shorter."""


def _sslv2_hello_start(data: bytes) -> Verdict:
    """RFC 5246 §E.2: `80–FF len 01 version`, and three lengths whose sum fits the record."""
    length = int.from_bytes(data[:2], "big") & 0x7FFF
    version = data[3:5]
    if data[2:3] not in (b"", b"\x01") or not any(v.startswith(version) for v in _SSLV2_VERSIONS):
        return Verdict.REJECT
    if len(data) < 11:
        return Verdict.NEED_MORE
    specs, session_id, challenge = (int.from_bytes(data[at : at + 2], "big") for at in (5, 7, 9))
    fits = (
        specs > 0
        and specs % 3 == 0
        and session_id in (0, 16)
        and 16 <= challenge <= 32
        and length == 9 + specs + session_id + challenge
    )
    return Verdict.MATCH if fits else Verdict.REJECT


_SSLV2_VERSIONS: Final = (b"\x00\x02", b"\x03\x00", b"\x03\x01", b"\x03\x02", b"\x03\x03")


@dataclass(slots=True)
class TlsConversation(Conversation):
    """Follows a handshake without intercepting it: hellos, the leaf up to TLS 1.2, fatal alerts.

    The hellos show which side is the client, so reversed roles need no separate code.
    """

    name: ClassVar[str] = "tls"

    up: Directive = MIRROR
    down: Directive = MIRROR
    passthrough: str | None = None
    on_client_certificate: Callable[[bool], None] | None = None
    """Called with the client's answer to a server that asks for its certificate, if it can be seen:
    True, it has none. Without this callback, the client is not read after its hello."""
    on_choice: Callable[[TlsDetails], None] | None = None
    """Called when the server has chosen version and cipher suite."""
    certificate: CertificateDetails | None = None
    """What the server has shown on an earlier connection, which this one replaces."""
    _details: TlsDetails = field(default_factory=TlsDetails)
    _asked_at: float | None = None
    """When the first ClientHello was seen."""
    _server: ServerHello | None = None
    _client: Direction | None = None
    """The direction of the client's answer to a request for its certificate."""
    _answer: bytes = b""
    """The beginning of that answer, if it comes before the server's hello: MIRROR shows bytes
    once."""
    _readers: dict[Direction, MessageReader] = field(
        default_factory=lambda: {Direction.UP: MessageReader(), Direction.DOWN: MessageReader()}
    )

    def feed(self, direction: Direction, data: bytes) -> int:
        if direction is self._client and self._server is None:
            self._answer += data[: MAX_PEEK - len(self._answer)]
            return len(data)
        self._read(direction, data)
        if self._client and self._server and self._answer:
            answer, self._answer = self._answer, b""
            self._read(self._client, answer)
        return len(data)

    def _read(self, direction: Direction, data: bytes) -> None:
        reader = self._readers[direction]
        try:
            for message in reader.feed(data):
                self._take(direction, message)
                reader.is_over = self.directive(direction) is FORWARD_ALL
        except ProtocolError:
            if reader.first in (None, *_HELLOS):
                raise
            self._close(direction)  # the middle of a connection: all is encrypted

    def end(self, direction: Direction) -> None:
        self.details_ready = True

    def details(self) -> TlsDetails:
        if self.passthrough is None:
            return self._details
        return replace(self._details, passthrough=self.passthrough)

    def _take(self, direction: Direction, message: Message) -> None:
        if direction is self._client and message.handshake_type != HandshakeType.CLIENT_HELLO:
            self._take_answer(direction, message)
            return
        match message.record_type:
            case RecordType.HANDSHAKE:
                self._take_handshake(direction, message)
            case RecordType.SSLV2 if message.handshake_type == HandshakeType.CLIENT_HELLO:
                self._take_handshake(direction, message)
            case RecordType.SSLV2:
                self._details = replace(self._details, version="SSLv2")
                self._close(direction)
            case RecordType.ALERT:
                self._take_alert(direction, message.body)
            case RecordType.CHANGE_CIPHER_SPEC if self._is_being_retried():
                pass  # RFC 8446 §D.4: for middleboxes only
            case RecordType.CHANGE_CIPHER_SPEC if self._details.resumed is None and self._server:
                # There was no certificate between the ServerHello and this: RFC 5246 §7.3, figure
                # 2.
                self._details = replace(self._details, resumed=True)
                self._close(direction)
            case RecordType.CHANGE_CIPHER_SPEC | RecordType.APPLICATION_DATA:
                self._close(direction)

    def _take_handshake(self, direction: Direction, message: Message) -> None:
        match message.handshake_type:
            case HandshakeType.CLIENT_HELLO:
                hello = ClientHello.of(message)
                if self._asked_at is None:
                    self._asked_at = self.context.clock()
                self._details = self._details.asked(hello, self.certificate)
                if target := self.context.target:
                    self.named += [Target(name, target.port) for name in hello.server_names]
                if self.on_client_certificate and not hello.early_data:
                    self._client = direction
                else:
                    self.set_directive(direction, FORWARD_ALL)
                self.details_ready = (
                    self.details_ready or self.directive(direction.other) is FORWARD_ALL
                )
            case HandshakeType.SERVER_HELLO:
                self._server = ServerHello.of(message)
                self._details = self._details.with_server_hello(self._server)
                if self.on_choice and not self._server.is_retry:
                    self.on_choice(self._details)
                if self._server.is_tls13 and not self._server.is_retry:
                    self._close(direction)
            case HandshakeType.CERTIFICATE:
                leaf = CertificateDetails.of_der(_first_certificate(message.body))
                if leaf and self.certificate and leaf.sha256 == self.certificate.sha256:
                    leaf = self.certificate
                self._details = replace(self._details, certificate=leaf, resumed=False)
            case HandshakeType.SERVER_KEY_EXCHANGE:
                self._details = replace(
                    self._details, group=_named_curve(message.body), resumed=False
                )
            case HandshakeType.SERVER_HELLO_DONE:
                self._close(direction)

    def _take_answer(self, direction: Direction, message: Message) -> None:
        """Read the client's answer to the server's flight."""
        assert self._server is not None
        assert self.on_client_certificate is not None
        if self._server.is_tls13 and message.record_type is RecordType.CHANGE_CIPHER_SPEC:
            return  # RFC 8446 §D.4
        self.set_directive(direction, FORWARD_ALL)
        is_empty = answers_empty(message, self._server)
        if is_empty is not None:
            self.on_client_certificate(is_empty)

    def _take_alert(self, direction: Direction, body: bytes) -> None:
        fatal = 2
        if len(body) == 2 and body[0] == fatal:
            sender = "client" if direction is Direction.UP else "server"
            self._details = replace(self._details, alert=f"{sender}: {alert_name(body[1])}")
            self._close(direction)

    def _is_being_retried(self) -> bool:
        return self._server is not None and self._server.is_retry

    def _close(self, direction: Direction) -> None:
        """Read no more in this direction. If the other is never shown, read nothing at all: its
        ClientHello has moved before this conversation began."""
        self.set_directive(direction, FORWARD_ALL)
        if self._server and self._asked_at is not None:
            took = max(self.context.clock() - self._asked_at, 0.0)
            self._details = replace(self._details, handshake_s=took)
        asked = self._server is None or self._details.version_offered is not None
        self.details_ready = self.details_ready or asked


def _first_certificate(body: bytes) -> bytes:
    """The leaf's DER in a Certificate message up to TLS 1.2 (RFC 5246 §7.4.2)."""
    return body[6 : 6 + int.from_bytes(body[3:6], "big")]


def _named_curve(body: bytes) -> str | None:
    """The group of an ECDHE ServerKeyExchange (RFC 8422 §5.4); finite-field ones have no name."""
    named_curve = 3
    return (
        group_name(int.from_bytes(body[1:3], "big")) if body[:1] == bytes([named_curve]) else None
    )


def _converse(context: LayerContext) -> TlsConversation:
    return TlsConversation(context=context)


PROTOCOL: Final = Protocol(
    name="tls",
    detect=detect,
    converse=_converse,
    client_first=bytes([0x14, 0x15, 0x16, 0x17, *range(0x80, 0x100)]),
    server_first=b"\x14\x15\x16\x17",
    terminates=True,
    conclusive=True,
)
