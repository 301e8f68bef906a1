"""The rest of a handshake whose server has chosen TLS 1.2 (RFC 5246 §7.3); we are its client.

    Certificate, CertificateStatus, ServerKeyExchange, CertificateRequest, ServerHelloDone
      (`Flight`)
    `finish`: Certificate, ClientKeyExchange, CertificateVerify, Finished
    NewSessionTicket, Finished (`ServerFinished`)

If a session is resumed, the server's Finished comes first (RFC 5077 §3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mitml4.crypto import groups, signatures
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import Extension
from mitml4.protocols.tls.names import is_grease
from mitml4.protocols.tls.records import HandshakeType
from mitml4.tls.bridge import messages
from mitml4.tls.bridge.errors import OTHER_CERTIFICATE, CannotBridge, StaysClosed
from mitml4.tls.bridge.extensions import (
    CERTIFICATE_TYPES,
    X509,
    Place,
    check_answers,
    not_relayed,
)
from mitml4.tls.bridge.flight import Flight, ServerFinished
from mitml4.tls.bridge.hello import RelayedHello
from mitml4.tls.bridge.identity import Identity, public_key
from mitml4.tls.bridge.leg import CHANGE_CIPHER_SPEC, Leg, Message
from mitml4.tls.bridge.older import GROUPS, Session, check_finished, choose
from mitml4.tls.bridge.older_messages import (
    Certificate12,
    CertificateRequest12,
    CertificateStatus,
    ClientKeyExchange,
    NewSessionTicket12,
    ServerHelloDone,
    ServerKeyExchange,
)
from mitml4.tls.bridge.wire import vector

__all__ = ["OlderServer"]

_SSL_3: Final = 0x0300
_TLS_1_2: Final = 0x0303
_RENEGOTIATION_SCSV: Final = 0x00FF  # RFC 5746 §3.3
_RELAYED: Final = frozenset(
    {
        Extension.SERVER_NAME,
        Extension.MAX_FRAGMENT_LENGTH,
        Extension.STATUS_REQUEST,
        Extension.SUPPORTED_GROUPS,
        Extension.EC_POINT_FORMATS,
        Extension.USE_SRTP,
        Extension.HEARTBEAT,
        Extension.ALPN,
        Extension.SIGNED_CERTIFICATE_TIMESTAMP,
        *CERTIFICATE_TYPES,
        Extension.EXTENDED_MASTER_SECRET,
        Extension.RECORD_SIZE_LIMIT,
        Extension.SESSION_TICKET,
        Extension.RENEGOTIATION_INFO,
    }
)
"""What a server may answer, and the client may be told."""


class OlderServer:
    """Takes over a leg after the server's hello."""

    def __init__(
        self,
        leg: Leg,
        offered: RelayedHello,
        hello: messages.ServerHello,
        *,
        verify_data: bytes = b"",
    ) -> None:
        """`offered`: what the server has answered; `verify_data`: the ends of the last handshake,
        if this is a renegotiation (RFC 5746 §3.5).

        Raises TlsError, and CannotBridge.
        """
        self.leg = leg
        self.offered = offered
        self.hello = hello
        _check(offered, hello)
        _check_ends(hello, verify_data)
        self.chosen = choose(hello)
        for kind, value in hello.extensions.items:
            if kind in CERTIFICATE_TYPES and value != X509:
                raise StaysClosed(OTHER_CERTIFICATE)
            if kind not in _RELAYED:
                raise not_relayed(kind)
        self._exchange: ServerKeyExchange | None = None
        self._request: CertificateRequest12 | None = None
        self._whole_request = b""
        self._ticket: NewSessionTicket12 | None = None
        self._chain: tuple[bytes, ...] = ()
        self._staple = b""
        self._session: Session | None = None
        self._client_end = self._server_end = b""
        self._premaster = self._share = b""
        """The secret of the key exchange, and our key in it."""
        self.take: Callable[[Message], Flight | ServerFinished | None] | None = self._take_first
        """Takes the next message; None: nothing has to come."""
        leg.choose_tls12()
        leg.transcript.choose(self.chosen.suite.hash, keep=True)
        _limit_records(leg, offered.record_size_limit, hello)
        if offered.session_id and hello.session_id == offered.session_id:
            self._resume(hello)

    def _resume(self, hello: messages.ServerHello) -> None:
        """RFC 5077 §3.4: the server has accepted a ticket, and says so by the session id."""
        ticket = self.offered.older_ticket
        if ticket is None:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a session that was not offered")
        if ticket.cipher_suite != hello.cipher_suite:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a session of another cipher suite")
        if ticket.extended != self.chosen.extended:
            # RFC 7627 §5.3: "the client MUST abort the handshake"
            raise TlsError(Alert.HANDSHAKE_FAILURE, "a session of another master secret")
        self._session = self._session_of(ticket.server_secret)
        self.leg.log("CLIENT_RANDOM", ticket.server_secret)
        self.take = self._take_end

    def _session_of(self, master: bytes) -> Session:
        return Session(
            chosen=self.chosen,
            master=master,
            client_random=self.offered.random,
            server_random=self.hello.random,
        )

    def _take_first(self, message: Message) -> None:
        _, body = self.leg.expect(message, HandshakeType.CERTIFICATE)
        certificate = Certificate12.parse(body)
        if not certificate.chain:
            raise TlsError(Alert.DECODE_ERROR, "no certificate")
        self._chain = certificate.chain
        self.leg.transcript.add(message[1])
        self.take = self._take_more

    def _take_more(self, message: Message) -> Flight | None:
        """The rest of the flight, in its order."""
        expected = [HandshakeType.SERVER_KEY_EXCHANGE]
        if self._exchange:
            expected = [HandshakeType.SERVER_HELLO_DONE]
            if not self._request:
                expected.append(HandshakeType.CERTIFICATE_REQUEST)
        elif Extension.STATUS_REQUEST in self.hello.extensions and not self._staple:
            expected.append(HandshakeType.CERTIFICATE_STATUS)
        kind, body = self.leg.expect(message, *expected)
        self.leg.transcript.add(message[1])
        match kind:
            case HandshakeType.CERTIFICATE_STATUS:
                self._staple = CertificateStatus.parse(body).response
            case HandshakeType.SERVER_KEY_EXCHANGE:
                self._exchange = self._checked(ServerKeyExchange.parse(body))
            case HandshakeType.CERTIFICATE_REQUEST:
                self._request = CertificateRequest12.parse(body)
                self._whole_request = message[1]
            case _:
                ServerHelloDone.parse(body)
                self.leg.end_flight()
                self.take = None
                return self._flight()
        return None

    def _checked(self, exchange: ServerKeyExchange) -> ServerKeyExchange:
        offered = self.offered.parsed
        if not offered.groups or not offered.signature_algorithms:
            # RFC 8422 §4 and RFC 5246 §7.4.1.4.1 have defaults for them.
            raise CannotBridge("a hello without groups or signature algorithms")
        if exchange.group not in offered.groups or is_grease(exchange.group):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a group that was not offered")
        if exchange.group not in GROUPS:
            raise CannotBridge(f"group 0x{exchange.group:04x}")
        allowed = exchange.scheme in offered.signature_algorithms
        if not allowed or not self.chosen.allows(exchange.scheme):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a signature scheme that was not offered")
        content = self.offered.random + self.hello.random + exchange.params
        self.leg.verify(
            exchange.scheme,
            public_key(self._chain[0]),
            exchange.signature,
            content,
            version=_TLS_1_2,
        )
        key = groups.generate(exchange.group)
        self._premaster, self._share = key.agree(exchange.point), key.share
        return exchange

    def _flight(self) -> Flight:
        exchange = self._exchange
        return Flight(
            hello=self.hello,
            older=self.chosen,
            suite=self.chosen.suite,
            group=exchange.group if exchange else None,
            chain=self._chain,
            staple=self._staple,
            request=self._whole_request,
            ticket=self.offered.older_ticket if self._session else None,
            new_ticket=self._ticket,
        )

    # The answer

    def finish(self, identity: Identity | None) -> None:
        """Answer the server; its Finished comes next, if it has not come."""
        leg = self.leg
        if self._session is None:
            self._session = self._exchange_keys(identity)
            leg.log("CLIENT_RANDOM", self._session.master)
            self.take = self._take_end
        verify_data = self._session.finished(leg.transcript, of_client=True)
        leg.send_change_cipher_spec()
        leg.records_out.protection = self._session.protection(of_client=True)
        leg.send(messages.Finished(verify_data).encode())
        self._client_end = verify_data

    def _exchange_keys(self, identity: Identity | None) -> Session:
        leg, request = self.leg, self._request
        scheme = request and identity and self._scheme(request, identity)
        if request:
            chain = identity.chain if identity and scheme else ()
            leg.send(Certificate12(chain).encode())
        leg.send(ClientKeyExchange(self._share).encode())
        session = Session.agreed(
            self.chosen,
            self._premaster,
            leg.transcript,
            client_random=self.offered.random,
            server_random=self.hello.random,
        )
        if identity and scheme:
            signature = signatures.sign(scheme, identity.key, leg.transcript.messages)
            leg.send(messages.CertificateVerify(scheme, signature).encode())
        leg.transcript.forget_messages()
        return session

    def _scheme(self, request: CertificateRequest12, identity: Identity) -> int | None:
        """The first of the server's schemes that this key can sign with."""
        able = signatures.schemes_of(identity.key, version=_TLS_1_2)
        return next((scheme for scheme in request.signature_algorithms if scheme in able), None)

    # The end

    def _take_end(self, message: Message) -> Flight | ServerFinished | None:
        """NewSessionTicket, ChangeCipherSpec and Finished."""
        assert self._session
        leg = self.leg
        promised = Extension.SESSION_TICKET in self.hello.extensions and not self._ticket
        if message[0] == CHANGE_CIPHER_SPEC and not promised:
            leg.read_with(self._session.protection(of_client=False))
            self.take = self._take_finished
            return None
        # RFC 5077 §3.3: "This message MUST be sent if the server included a SessionTicket extension
        # in the ServerHello."
        expected = (HandshakeType.NEW_SESSION_TICKET,) if promised else ()
        _, body = leg.expect(message, *expected)
        self._ticket = NewSessionTicket12.parse(body)
        leg.transcript.add(message[1])
        return None

    def _take_finished(self, message: Message) -> Flight | ServerFinished:
        assert self._session
        _, body = self.leg.expect(message, HandshakeType.FINISHED)
        check_finished(self._session.finished(self.leg.transcript, of_client=False), body)
        self.leg.end_flight()
        self.leg.transcript.add(message[1])
        self._server_end = body
        self.take = None
        if not self._exchange:
            return self._flight()
        return ServerFinished(self._ticket)

    @property
    def ends(self) -> tuple[bytes, bytes]:
        """The content of the client's Finished, and of the server's, once both were sent."""
        return self._client_end, self._server_end

    @property
    def master(self) -> bytes:
        """The session's secret with the server."""
        assert self._session
        return self._session.master


def _check(relayed: RelayedHello, hello: messages.ServerHello) -> None:
    """What the server has chosen was offered (RFC 5246 §7.4.1.3)."""
    offered = relayed.parsed
    version = hello.legacy_version
    listed = offered.supported_versions
    if not _SSL_3 <= version <= _TLS_1_2 or (listed and version not in listed):
        raise TlsError(Alert.PROTOCOL_VERSION, "a version that was not offered")
    if version != _TLS_1_2:
        raise CannotBridge("a version before TLS 1.2")
    if hello.cipher_suite not in offered.cipher_suites:
        raise TlsError(Alert.ILLEGAL_PARAMETER, "a cipher suite that was not offered")
    if hello.compression:
        raise TlsError(Alert.ILLEGAL_PARAMETER, "a compression that was not offered")
    known = set(offered.extensions)
    if _RENEGOTIATION_SCSV in offered.cipher_suites:
        known.add(Extension.RENEGOTIATION_INFO)
    check_answers(known, hello.extensions, Place.SERVER_HELLO_12)
    if hello.alpn is not None and hello.alpn not in (offered.alpn or ()):
        raise TlsError(Alert.ILLEGAL_PARAMETER, "an application protocol not offered")


def _check_ends(hello: messages.ServerHello, verify_data: bytes) -> None:
    """RFC 5746 §3.4, §3.5: in a renegotiation "the client MUST verify that the "renegotiation_info"
    extension is present"."""
    info = hello.extensions.get(Extension.RENEGOTIATION_INFO)
    if info != vector(1, verify_data) and (verify_data or info is not None):
        raise TlsError(Alert.HANDSHAKE_FAILURE, "a renegotiation of another connection")


def _limit_records(leg: Leg, own: int | None, hello: messages.ServerHello) -> None:
    """RFC 8449 §4, RFC 6066 §4. `own`: the record_size_limit that was offered."""
    answer = messages.EncryptedExtensions(hello.extensions)
    if own and (limit := answer.record_size_limit):
        leg.limit_records(sent=limit, received=own)
    elif fragment := answer.max_fragment_length:
        leg.limit_records(sent=fragment, received=fragment)
