"""The leg to the server: TLS 1.3 as a client, with the hello of the client whose flow it is.

    the hello goes out; ServerHello, or a HelloRetryRequest first (`Retry`, then `send_retried`)
    EncryptedExtensions, CertificateRequest, Certificate, CertificateVerify, Finished (`Flight`)
    `finish`: what the client answers

A `Flight` is complete and checked as a client checks it (RFC 8446 §4), but for the certificate,
which others verify. The server gets no answer before `finish`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Final

from mitml4.crypto import groups, signatures
from mitml4.crypto.records import protection_1_3
from mitml4.crypto.schedule import Schedule, Secrets, finished
from mitml4.crypto.signatures import CannotVerify, PublicKey
from mitml4.crypto.suites import suite_of
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import Extension
from mitml4.protocols.tls.names import is_grease
from mitml4.protocols.tls.records import HandshakeType
from mitml4.tls.bridge import certificates, messages, older_messages
from mitml4.tls.bridge.delegation import verify_credential
from mitml4.tls.bridge.errors import OTHER_CERTIFICATE, CannotBridge, StaysClosed
from mitml4.tls.bridge.extensions import (
    CERTIFICATE_TYPES,
    X509,
    Place,
    RawExtensions,
    check_answers,
    not_relayed,
)
from mitml4.tls.bridge.flight import SETTINGS, Flight, Retry, ServerFinished
from mitml4.tls.bridge.hello import RelayedHello
from mitml4.tls.bridge.identity import Identity, answer_request, public_key
from mitml4.tls.bridge.leg import KeyLog, Leg, Message, PeerAlert
from mitml4.tls.bridge.older_server import OlderServer
from mitml4.tls.bridge.tickets import Ticket

__all__ = ["ServerLeg"]

_TLS_1_2: Final = 0x0303
_TLS_1_3: Final = 0x0304
_DOWNGRADES: Final = (b"DOWNGRD\x01", b"DOWNGRD\x00")  # RFC 8446 §4.1.3
_BROKEN_SCHEMES: Final = frozenset({0x0201, 0x0203, 0x0401, 0x0501, 0x0601})
"""PKCS #1 and SHA-1: RFC 8446 §4.2.3 excludes them from CertificateVerify."""
_IN_HELLO: Final = frozenset(
    {
        Extension.PRE_SHARED_KEY,
        Extension.SUPPORTED_VERSIONS,
        Extension.COOKIE,
        Extension.KEY_SHARE,
        Extension.ENCRYPTED_CLIENT_HELLO,
    }
)
_RELAYED: Final = frozenset(
    {
        Extension.SERVER_NAME,
        Extension.MAX_FRAGMENT_LENGTH,
        Extension.SUPPORTED_GROUPS,
        Extension.USE_SRTP,
        Extension.HEARTBEAT,
        Extension.ALPN,
        *CERTIFICATE_TYPES,
        Extension.RECORD_SIZE_LIMIT,
        *SETTINGS,
        Extension.ENCRYPTED_CLIENT_HELLO,
    }
)
"""What a server may answer in EncryptedExtensions, and the client may be told."""


class ServerLeg(Leg):
    """The handshake with the server."""

    def __init__(self, hello: RelayedHello, keylog: KeyLog | None = None) -> None:
        super().__init__(hello.random, keylog)
        self.hello = hello
        self._take: Callable[[Message], Retry | Flight | None] | None = self._take_hello
        """Takes the next message; None: nothing has to come."""
        self.older: OlderServer | None = None
        """Takes them instead, if TLS 1.2 was chosen."""
        self._retry: messages.ServerHello | None = None
        self._request: messages.CertificateRequest | None = None
        self._whole_request = b""
        self._compression: int | None = None
        self._entries: tuple[tuple[bytes, RawExtensions], ...] = ()
        self._key: tuple[PublicKey, Iterable[int]] | None = None
        self.transcript.add(hello.sent)
        self._pending += hello.records()

    def next_event(self) -> Retry | Flight | ServerFinished | PeerAlert | None:
        """What the server has done; None: more bytes are needed.

        Raises TlsError, and CannotBridge.
        """
        while take := self.older.take if self.older else self._take:
            message = self.next_message()
            if message is None or isinstance(message, PeerAlert):
                return message
            if event := take(message):
                return event
        return None

    # ServerHello

    def _take_hello(self, message: Message) -> Retry | None:
        _, body = self.expect(message, HandshakeType.SERVER_HELLO)
        hello = messages.ServerHello.parse(body)
        if Extension.SUPPORTED_VERSIONS not in hello.extensions:
            if hello.is_retry:
                raise TlsError(Alert.MISSING_EXTENSION, "a retry without a version")
            self._take_older(hello)
            self.transcript.add(message[1])
            return None
        self._check_hello(hello)
        suite = suite_of(hello.cipher_suite)
        assert suite
        if hello.is_retry:
            self._check_retry(hello)
            self.end_flight()
            self.transcript.replace_hello(suite.hash)
            self.transcript.add(message[1])
            self._retry = hello
            return Retry(hello)
        self.hello_of_server, self.suite = hello, suite
        self.transcript.choose(suite.hash)
        self.transcript.add(message[1])
        self._enter_handshake()
        self._take = self._take_extensions
        return None

    def _check_hello(self, hello: messages.ServerHello) -> None:
        offered = self.hello.parsed
        version = hello.selected_version
        # RFC 8446 §4.2.1: also for "a version prior to TLS 1.3".
        if version < _TLS_1_3 or version not in offered.versions:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a version that was not offered")
        if version != _TLS_1_3:
            raise CannotBridge(f"version 0x{version:04x}")
        if hello.legacy_version != _TLS_1_2 or hello.compression:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a ServerHello of TLS 1.3 with older fields")
        if hello.session_id != self.hello.session_id:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "another session id than the client's")
        if hello.cipher_suite not in offered.cipher_suites:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a cipher suite that was not offered")
        if hello.cipher_suite >> 8 != 0x13:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a cipher suite of an older version")
        if suite_of(hello.cipher_suite) is None:
            raise CannotBridge(f"cipher suite 0x{hello.cipher_suite:04x}")
        if self._retry and hello.cipher_suite != self._retry.cipher_suite:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "another cipher suite after a retry")
        place = Place.HELLO_RETRY_REQUEST if hello.is_retry else Place.SERVER_HELLO
        check_answers(offered.extensions, hello.extensions, place)
        for kind in hello.extensions.types:
            if kind not in _IN_HELLO:
                raise not_relayed(kind)

    def _take_older(self, hello: messages.ServerHello) -> None:
        """RFC 8446 §4.1.3: a client of TLS 1.2 checks that it does not get TLS 1.1."""
        if self._retry:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "an older version after a retry")
        lowered = self.hello.offers_1_3 or hello.legacy_version < _TLS_1_2
        if lowered and hello.random[-8:] in _DOWNGRADES:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "somebody has lowered the version")
        self.older = OlderServer(self, self.hello, hello)

    def _check_retry(self, hello: messages.ServerHello) -> None:
        """RFC 8446 §4.1.4, §4.2.8."""
        if self._retry:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "a second HelloRetryRequest")
        group = hello.key_share and hello.key_share[0]
        if group is None and Extension.COOKIE not in hello.extensions:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a retry that would change nothing")
        if group is None:
            return
        offered = self.hello.parsed
        if group not in offered.groups or group in offered.key_shares or is_grease(group):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a retry for a group that was not asked for")
        if group not in groups.SUPPORTED:
            raise CannotBridge(f"group 0x{group:04x}")

    def send_retried(self, hello: RelayedHello) -> None:
        """The client's second hello."""
        self.hello = hello
        if hello.session_id:
            self.send_change_cipher_spec()
        self.transcript.add(hello.sent)
        self._pending += hello.records()

    def _enter_handshake(self) -> None:
        hello = self.hello_of_server
        self._ticket = self._resumed_ticket(hello.psk_index)
        schedule = Schedule(self.suite.hash, self._ticket.server_secret if self._ticket else b"")
        secrets = schedule.enter_handshake(self._shared_secret(), self.transcript.digest())
        self._schedule, self._secrets = schedule, secrets
        self.log_handshake(secrets)
        self.read_with(protection_1_3(self.suite, secrets.server))
        if self.hello.session_id and not self._retry:
            self.send_change_cipher_spec()
        self.records_out.protection = protection_1_3(self.suite, secrets.client)

    def _resumed_ticket(self, identity: int | None) -> Ticket | None:
        if identity is None:
            return None
        if identity >= self.hello.identities:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a session that was not offered")
        ticket = self.hello.ticket_at(identity)
        if ticket is None:
            raise CannotBridge("a session that is not known")
        if ticket.suite.hash != self.suite.hash:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a session of another hash")
        return ticket

    def _shared_secret(self) -> bytes:
        share = self.hello_of_server.key_share
        if share is None:
            if self._ticket is None or not self.hello.allows_psk_alone:
                raise TlsError(Alert.MISSING_EXTENSION, "no key share")
            self._group = None
            return b""
        group, key = share
        asked = self._retry.key_share if self._retry else None
        wrong = group not in self.hello.parsed.key_shares or is_grease(group)
        if wrong or (asked and group != asked[0]):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a key share that was not asked for")
        if group not in self.hello.shares:
            raise CannotBridge(f"group 0x{group:04x}")
        assert key is not None
        self._group = group
        return self.hello.shares[group].agree(key)

    # EncryptedExtensions to Finished

    def _take_extensions(self, message: Message) -> None:
        _, body = self.expect(message, HandshakeType.ENCRYPTED_EXTENSIONS)
        answer = messages.EncryptedExtensions.parse(body)
        offered = self.hello.parsed
        check_answers(offered.extensions, answer.extensions, Place.ENCRYPTED_EXTENSIONS)
        alpn = answer.alpn
        if alpn is not None and alpn not in (offered.alpn or ()):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "an application protocol not offered")
        if answer.record_size_limit and answer.max_fragment_length:
            # RFC 8449 §5: a client "MUST generate a fatal "illegal_parameter" alert"
            raise TlsError(Alert.ILLEGAL_PARAMETER, "two limits of records")
        settings = [kind for kind in SETTINGS if kind in answer.extensions]
        if len(settings) > 1 or (settings and alpn is None):
            # draft-vvv-tls-alps §4: they belong to the application protocol.
            raise TlsError(Alert.ILLEGAL_PARAMETER, "settings of no application protocol")
        if answer.early_data:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "early data that was not agreed")
        for kind, value in answer.extensions.items:
            if kind not in _RELAYED:
                raise not_relayed(kind)
            if kind in CERTIFICATE_TYPES and value != X509:
                # OpenSSL would not offer the type, and the server would show a certificate instead.
                raise StaysClosed(OTHER_CERTIFICATE)
        own = self.hello.record_size_limit
        if own and (limit := answer.record_size_limit):
            self.limit_records(sent=limit - 1, received=own - 1)
        elif fragment := answer.max_fragment_length:
            self.limit_records(sent=fragment, received=fragment)
        self.extensions = answer
        self.transcript.add(message[1])
        self._take = self._take_finished if self._ticket else self._take_certificate

    def _take_request(self, body: bytes) -> None:
        self._request = messages.CertificateRequest.parse(body)
        if self._request.context:
            raise TlsError(Alert.DECODE_ERROR, "a context in the handshake's CertificateRequest")
        self._request.check()

    def _take_certificate(self, message: Message) -> None:
        types = [HandshakeType.CERTIFICATE]
        if not self._request:
            types.append(HandshakeType.CERTIFICATE_REQUEST)
        if Extension.COMPRESS_CERTIFICATE in self.hello.parsed.extensions:
            types.append(HandshakeType.COMPRESSED_CERTIFICATE)
        kind, body = self.expect(message, *types)
        self.transcript.add(message[1])
        if kind == HandshakeType.CERTIFICATE_REQUEST:
            self._take_request(body)
            self._whole_request = message[1]
            return
        if kind == HandshakeType.COMPRESSED_CERTIFICATE:
            compressed = messages.CompressedCertificate.parse(body)
            if compressed.algorithm not in self.hello.compression_algorithms:
                raise TlsError(Alert.ILLEGAL_PARAMETER, "a compression that was not offered")
            body = certificates.decompress(compressed)
            self._compression = compressed.algorithm
        certificate = messages.Certificate.parse(body)
        if certificate.context:
            raise TlsError(Alert.DECODE_ERROR, "a context in the server's Certificate")
        if not certificate.entries:
            raise TlsError(Alert.DECODE_ERROR, "no certificate")
        for _, extensions in certificate.entries:
            check_answers(self.hello.parsed.extensions, extensions, Place.CERTIFICATE)
        self._entries = certificate.entries
        self._key = self._verifying_key()
        self._take = self._take_verify

    def _verifying_key(self) -> tuple[PublicKey, Iterable[int]]:
        """The key that signs this handshake, and the schemes that it may use."""
        leaf, extensions = self._entries[0]
        credential = extensions.get(Extension.DELEGATED_CREDENTIAL)
        if credential is not None:
            try:
                key, scheme = verify_credential(
                    credential,
                    leaf,
                    self.hello.credential_algorithms,
                    self.hello.parsed.signature_algorithms,
                )
            except CannotVerify as error:
                raise CannotBridge(f"a delegated credential: {error}") from error
            return key, (scheme,)
        return public_key(leaf), self.hello.parsed.signature_algorithms

    def _take_verify(self, message: Message) -> None:
        _, body = self.expect(message, HandshakeType.CERTIFICATE_VERIFY)
        verify = messages.CertificateVerify.parse(body)
        assert self._key
        key, allowed = self._key
        if verify.scheme not in allowed or verify.scheme in _BROKEN_SCHEMES:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a signature scheme that was not offered")
        content = signatures.signed_content(
            "TLS 1.3, server CertificateVerify", self.transcript.digest()
        )
        self.verify(verify.scheme, key, verify.signature, content, version=_TLS_1_3)
        self.transcript.add(message[1])
        self._take = self._take_finished

    def _take_finished(self, message: Message) -> Flight:
        _, body = self.expect(message, HandshakeType.FINISHED)
        name = self.suite.hash
        expected = finished(name, self._secrets.server, self.transcript.digest())
        if len(body) != len(expected):
            raise TlsError(Alert.DECODE_ERROR, "a Finished of another length")
        if not hmac.compare_digest(body, expected):
            raise TlsError(Alert.DECRYPT_ERROR, "a Finished that does not fit")
        self.transcript.add(message[1])
        self._application = self._enter_application()
        self._take = None
        return Flight(
            hello=self.hello_of_server,
            extensions=self.extensions,
            suite=self.suite,
            group=self._group,
            chain=tuple(der for der, _ in self._entries),
            staple=self._staple(),
            request=self._whole_request,
            compression=self._compression,
            ticket=self._ticket,
        )

    def _staple(self) -> bytes:
        """The OCSP response for the leaf; empty: none."""
        for _, extensions in self._entries[:1]:
            if status := extensions.get(Extension.STATUS_REQUEST):
                return older_messages.CertificateStatus.parse(status).response
        return b""

    def _enter_application(self) -> Secrets:
        digest = self.transcript.digest()
        secrets = self._schedule.enter_application(digest)
        self.log_application(secrets, self._schedule, digest)
        self.read_with(protection_1_3(self.suite, secrets.server))
        return secrets

    # The answer

    def finish(self, settings: bytes = b"", identity: Identity | None = None) -> None:
        """Answer: the client's application settings (a whole EncryptedExtensions), our certificate
        if the server has asked for one (or that there is none), and Finished.

        After that the leg is connected; in TLS 1.2 after the server's Finished.
        """
        if self.older:
            self.older.finish(identity)
            return
        if settings:
            self.send(settings)
        if self._request:
            for message in answer_request(self._request, identity, self.transcript):
                self.send(message)
        mac = finished(self.suite.hash, self._secrets.client, self.transcript.digest())
        self.send(messages.Finished(mac).encode())
        self.resumption = self._schedule.resumption(self.transcript.digest())
        self.records_out.protection = protection_1_3(self.suite, self._application.client)
