"""The leg to the client: TLS 1.3 as a server, that answers as the client's server has.

made of the client's hello; `send_retry` if the server wants another one (`SecondHello`)
`send_flight`: the server's answers, with our key share, certificate, and signature
the client's application settings, if they were agreed, and Finished (`ClientFinished`)
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from mitml4.crypto import groups, signatures
from mitml4.crypto.records import protection_1_3
from mitml4.crypto.schedule import Schedule, finished
from mitml4.crypto.signatures import PrivateKey
from mitml4.crypto.suites import suite_of
from mitml4.dataclass import replace
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.protocols.tls.records import HandshakeType, RecordType
from mitml4.tls.bridge import certificates, messages, older_messages
from mitml4.tls.bridge.extensions import Place, check_answers
from mitml4.tls.bridge.flight import ClientFinished, Flight, SecondHello, Shown
from mitml4.tls.bridge.hello import RelayedHello
from mitml4.tls.bridge.identity import certificate_of
from mitml4.tls.bridge.leg import KeyLog, Leg, Message, PeerAlert
from mitml4.tls.bridge.older_client import OlderClient
from mitml4.tls.bridge.psks import binder_input, binders
from mitml4.tls.bridge.wire import uint16, vector

__all__ = ["ClientLeg"]

_TLS_1_3: Final = 0x0304
_REMEMBERED: Final = 32
_MAX_EARLY_DATA: Final = 128 * 1024
"""Of a client that has a ticket of the server's from before we came: it sends data at once, which
nobody can read. Servers announce 16 KiB, as a rule."""
_CHANGING: Final = {
    Extension.KEY_SHARE,
    Extension.EARLY_DATA,
    Extension.COOKIE,
    Extension.PRE_SHARED_KEY,
    Extension.PADDING,
    Extension.ENCRYPTED_CLIENT_HELLO,
}
"""The extensions that a second hello may have, or not (RFC 8446 §4.1.2, RFC 9849 §6.1.5)."""


class ClientLeg(Leg):
    """The handshake with the client."""

    def __init__(self, hello: RelayedHello, keylog: KeyLog | None = None) -> None:
        """Raises TlsError if the client does not know the key of the session that it resumes."""
        super().__init__(hello.parsed.random, keylog)
        self.hello = hello
        self._retry: messages.ServerHello | None = None
        self._flight: Flight | None = None
        self._settings = b""
        self._awaits_certificate = self._has_certificate = False
        self._second: bytearray | None = None
        """The client's records since a retry."""
        self._take: Callable[[Message], SecondHello | ClientFinished | None] | None = None
        """Takes the next message; None: nothing has to come."""
        self.older: OlderClient | None = None
        """Takes them instead, if TLS 1.2 was chosen."""
        self._take_hello(hello)

    def _take_hello(self, hello: RelayedHello) -> None:
        self.hello = hello
        self._check_binder()
        self.transcript.add(hello.received)
        if hello.parsed.early_data and not self._retry:
            self.records_in.early_data_to_skip = _MAX_EARLY_DATA

    def _check_binder(self) -> None:
        """RFC 8446 §4.2.11.2."""
        found = self.hello.ticket
        if found is None:
            return
        index, ticket = found
        name = ticket.suite.hash
        start = self.transcript.copy()
        start.add(binder_input(self.hello.received))
        start.choose(name)
        key = Schedule(name, ticket.client_secret).binder_key()
        expected = finished(name, key, start.digest())
        if not hmac.compare_digest(expected, binders(self.hello.received)[index]):
            raise TlsError(Alert.DECRYPT_ERROR, "a session whose key the client does not know")

    # HelloRetryRequest

    def receive(self, data: bytes | memoryview) -> None:
        if self._second is not None:
            self._second += data
        super().receive(data)

    def send_retry(self, retry: messages.ServerHello) -> None:
        """Relay what the server asks for."""
        suite = suite_of(retry.cipher_suite)
        assert suite
        message = replace(retry, session_id=self.hello.parsed.session_id).encode()
        self.transcript.replace_hello(suite.hash)
        self.send(message)
        if self.hello.parsed.session_id:
            self.send_change_cipher_spec()
        self._retry = retry
        self._second = bytearray()
        self._take = self._take_second

    def take_second_hello(self, hello: RelayedHello) -> None:
        """What `SecondHello` had, as it was relayed. Raises TlsError as the constructor does, and
        for what a second hello may not change (RFC 8446 §4.1.2)."""
        assert self._retry
        first, second = self.hello.parsed, hello.parsed
        asked = self._retry.key_share
        # "replacing the list of shares with a list containing a single KeyShareEntry from the
        # indicated group"
        if second.key_shares != ((asked[0],) if asked else first.key_shares):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "other key shares than the retry asked for")
        if second.early_data:
            raise TlsError(Alert.ILLEGAL_PARAMETER, "early data after a retry")
        if _constant(first) != _constant(second):
            raise TlsError(Alert.ILLEGAL_PARAMETER, "a second hello that is another one")
        self._take_hello(hello)

    # The server's flight

    def send_flight(self, flight: Flight, shown: Shown | None) -> None:
        """Answer the client as the server has, with this certificate (None: a resumed session).

        Raises TlsError if the client's key share is broken, or nothing can be signed for it; then
        nothing is to be sent, and `fail` makes an alert that the client can read.
        """
        self._flight = flight
        if flight.older:
            self.older = OlderClient(self, self.hello, flight, shown)
            return
        assert flight.extensions
        suite = flight.suite
        scheme = self._scheme(shown.key) if shown else None
        hello, shared = self._answer_hello(flight)
        self.transcript.choose(suite.hash)
        self.send(hello.encode())
        if self.hello.parsed.session_id and not self._retry:
            self.send_change_cipher_spec()
        schedule = Schedule(suite.hash, flight.ticket.client_secret if flight.ticket else b"")
        secrets = schedule.enter_handshake(shared, self.transcript.digest())
        self.log_handshake(secrets)
        self.read_with(protection_1_3(suite, secrets.client))
        self.records_out.protection = protection_1_3(suite, secrets.server)
        self._limit_records(flight.extensions)
        answer = self._answers(flight, flight.extensions, shown, scheme)
        mac = finished(suite.hash, secrets.server, self.transcript.digest())
        answer += self._noted(messages.Finished(mac).encode())
        self._pending += self.records_out.seal(RecordType.HANDSHAKE, bytes(answer))
        self._schedule, self._secrets = schedule, secrets
        digest = self.transcript.digest()
        self._application = schedule.enter_application(digest)
        self.log_application(self._application, schedule, digest)
        self.records_out.protection = protection_1_3(suite, self._application.server)
        self._awaits_certificate = shown is not None and shown.asks
        self._take = self._take_answer

    def _answer_hello(self, flight: Flight) -> tuple[messages.ServerHello, bytes]:
        """The ServerHello, and the secret that it shares with the client."""
        extensions, secret = flight.hello.extensions, b""
        if flight.group is not None:
            key = self.hello.client_shares[flight.group]
            share, secret = groups.respond(flight.group, key)
            entry = uint16(flight.group) + vector(2, share)
            extensions = extensions.replaced(Extension.KEY_SHARE, entry)
        hello = replace(
            flight.hello,
            random=os.urandom(32),
            session_id=self.hello.parsed.session_id,
            extensions=extensions,
        )
        return hello, secret

    def _limit_records(self, answer: messages.EncryptedExtensions) -> None:
        limit, own = self.hello.record_size_limit, answer.record_size_limit
        if limit and own:
            self.limit_records(sent=limit - 1, received=own - 1)
        elif fragment := answer.max_fragment_length:
            self.limit_records(sent=fragment, received=fragment)

    def _answers(
        self,
        flight: Flight,
        answer: messages.EncryptedExtensions,
        shown: Shown | None,
        scheme: int | None,
    ) -> bytearray:
        """The messages between ServerHello and Finished."""
        told = answer.extensions.without(Extension.ENCRYPTED_CLIENT_HELLO)
        answers = bytearray(self._noted(messages.EncryptedExtensions(told).encode()))
        if shown is None or scheme is None:
            return answers
        if shown.asks:
            answers += self._noted(flight.request)
        answers += self._noted(self._certificate(flight, shown))
        content = signatures.signed_content(
            "TLS 1.3, server CertificateVerify", self.transcript.digest()
        )
        signature = signatures.sign(scheme, shown.key, content)
        answers += self._noted(messages.CertificateVerify(scheme, signature).encode())
        return answers

    def _certificate(self, flight: Flight, shown: Shown) -> bytes:
        staple = shown.staple if self.hello.parsed.status_request else b""
        return _certificate(shown.chain, staple, flight.compression)

    def _scheme(self, key: PrivateKey) -> int:
        able = signatures.schemes_of(key, version=_TLS_1_3)
        for scheme in self.hello.parsed.signature_algorithms:
            if scheme in able:
                return scheme
        raise TlsError(Alert.HANDSHAKE_FAILURE, "no signature scheme that the client accepts")

    def _noted(self, message: bytes) -> bytes:
        self.transcript.add(message)
        return message

    def finish(self, ticket: older_messages.NewSessionTicket12 | None) -> None:
        """The server's handshake is over too: send the last messages of TLS 1.2."""
        assert self.older
        self.older.finish(ticket)

    # The client's answer

    def next_event(self) -> SecondHello | ClientFinished | PeerAlert | None:
        """What the client has done; None: more bytes are needed. Raises TlsError."""
        while take := self.older.take if self.older else self._take:
            message = self.next_message()
            if message is None or isinstance(message, PeerAlert):
                return message
            if event := take(message):
                return event
        return None

    def _take_second(self, message: Message) -> SecondHello:
        self.expect(message, HandshakeType.CLIENT_HELLO)
        self.end_flight()
        assert self._second is not None
        stream, self._second, self._take = bytes(self._second), None, None
        return SecondHello(_handshake_records(stream))

    def _take_answer(self, message: Message) -> ClientFinished | None:
        flight = self._flight
        assert flight
        if flight.settings is not None and not self._settings:
            self.expect(message, HandshakeType.ENCRYPTED_EXTENSIONS)
            answer = messages.EncryptedExtensions.parse(message[1][4:])
            check_answers((flight.settings,), answer.extensions, Place.ENCRYPTED_EXTENSIONS)
            if flight.settings not in answer.extensions:
                raise TlsError(Alert.MISSING_EXTENSION, "no application settings")
            self._settings = self._noted(message[1])
            return None
        if self._awaits_certificate:
            self._take_certificate(message)
            return None
        _, body = self.expect(message, HandshakeType.FINISHED)
        expected = finished(flight.suite.hash, self._secrets.client, self.transcript.digest())
        if len(body) != len(expected):
            raise TlsError(Alert.DECODE_ERROR, "a Finished of another length")
        if not hmac.compare_digest(body, expected):
            raise TlsError(Alert.DECRYPT_ERROR, "a Finished that does not fit")
        self.transcript.add(message[1])
        self.read_with(protection_1_3(flight.suite, self._application.client))
        self.resumption = self._schedule.resumption(self.transcript.digest())
        self._take = None
        return ClientFinished(self._settings, self._has_certificate)

    def _take_certificate(self, message: Message) -> None:
        """A certificate is followed by its CertificateVerify, which nobody here relies on."""
        if self._has_certificate:
            _, body = self.expect(message, HandshakeType.CERTIFICATE_VERIFY)
            messages.CertificateVerify.parse(body)
            self._awaits_certificate = False
        else:
            kinds = HandshakeType.CERTIFICATE, HandshakeType.COMPRESSED_CERTIFICATE
            kind, body = self.expect(message, *kinds)
            is_plain = kind == HandshakeType.CERTIFICATE
            self._has_certificate = not is_plain or bool(messages.Certificate.parse(body).entries)
            self._awaits_certificate = self._has_certificate
        self._noted(message[1])


@lru_cache(_REMEMBERED)
def _certificate(chain: tuple[bytes, ...], staple: bytes, compression: int | None) -> bytes:
    """The message with a leaf of ours, which many clients are shown."""
    certificate = certificate_of(chain, staple=staple)
    if compression is None:
        return certificate.encode()
    return certificates.compress(certificate.body, compression).encode()


def _constant(hello: ClientHello) -> tuple[object, ...]:
    """What a second hello has to repeat. Whoever repeats it may do so in another order, and we do
    not look into what is relayed as it is."""
    return (
        hello.legacy_version,
        hello.random,
        hello.session_id,
        hello.cipher_suites,
        hello.compression,
        hello.supported_versions,
        hello.groups,
        hello.signature_algorithms,
        hello.alpn,
        hello.sni,
        set(hello.extensions) - _CHANGING,
    )


def _handshake_records(stream: bytes) -> bytes:
    """Of whole records, those that have handshake messages in them: no ChangeCipherSpec, and no
    early data."""
    kept, at = bytearray(), 0
    while at < len(stream):
        end = at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
        if stream[at] == RecordType.HANDSHAKE:
            kept += stream[at:end]
        at = end
    return bytes(kept)
