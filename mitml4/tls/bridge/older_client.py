"""The leg to a client whose server has chosen TLS 1.2 (RFC 5246 §7.3); we are its server.

    ServerHello, Certificate, CertificateStatus, ServerKeyExchange, ServerHelloDone
    the client's ClientKeyExchange and Finished (`ClientFinished`)
    `finish`: NewSessionTicket, Finished

If a session is resumed, our Finished is in the first flight (RFC 5077 §3.1).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mitml4.crypto import groups, signatures
from mitml4.crypto.signatures import PrivateKey
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import Extension
from mitml4.protocols.tls.records import HandshakeType
from mitml4.tls.bridge import messages, older_messages
from mitml4.tls.bridge.flight import ClientFinished, Flight, Shown
from mitml4.tls.bridge.hello import RelayedHello
from mitml4.tls.bridge.leg import CHANGE_CIPHER_SPEC, Leg, Message
from mitml4.tls.bridge.older import Session, check_finished

__all__ = ["OlderClient"]

_TLS_1_2: Final = 0x0303


class OlderClient:
    """Takes over a leg before the server's hello is sent."""

    def __init__(
        self, leg: Leg, offered: RelayedHello, flight: Flight, shown: Shown | None
    ) -> None:
        """Sends the server's flight. `offered`: what the client has; `shown` is None for a resumed
        session.

        Raises TlsError if nothing can be signed for the client.
        """
        assert flight.older
        self.leg = leg
        self.offered = offered
        self.chosen = flight.older
        resumed = shown is None
        hello = flight.hello
        session_id = offered.parsed.session_id if resumed else os.urandom(len(hello.session_id))
        self._hello = replace(hello, random=os.urandom(32), session_id=session_id)
        self._session: Session | None = None
        self._key: groups.KeyShare | None = None
        self._has_certificate = False
        self.take: Callable[[Message], ClientFinished | None] | None = self._take_exchange
        """Takes the next message; None: nothing has to come."""
        scheme = self._scheme(shown.key) if shown else 0
        leg.choose_tls12()
        leg.records_in.early_data_to_skip = 0
        leg.transcript.choose(self.chosen.suite.hash)
        self._limit_records()
        leg.send(self._hello.encode())
        if shown:
            self._send_certificate(shown)
            self._send_exchange(flight, shown.key, scheme)
            if shown.asks:
                leg.send(flight.request)
                self.take = self._take_certificate
            leg.send(older_messages.ServerHelloDone().encode())
        else:
            assert flight.ticket
            self._session = self._session_of(flight.ticket.client_secret)
            leg.log("CLIENT_RANDOM", flight.ticket.client_secret)
            self.take = self._take_change

    def _limit_records(self) -> None:
        answer = messages.EncryptedExtensions(self._hello.extensions)
        limit, own = self.offered.record_size_limit, answer.record_size_limit
        if limit and own:
            self.leg.limit_records(sent=limit, received=own)
        elif fragment := answer.max_fragment_length:
            self.leg.limit_records(sent=fragment, received=fragment)

    def _session_of(self, master: bytes) -> Session:
        return Session(
            chosen=self.chosen,
            master=master,
            client_random=self.offered.parsed.random,
            server_random=self._hello.random,
        )

    def _send_certificate(self, shown: Shown) -> None:
        self.leg.send(older_messages.Certificate12(shown.chain).encode())
        if shown.staple and Extension.STATUS_REQUEST in self._hello.extensions:
            self.leg.send(older_messages.CertificateStatus(shown.staple).encode())

    def _send_exchange(self, flight: Flight, key: PrivateKey, scheme: int) -> None:
        assert flight.group is not None
        self._key = groups.generate(flight.group)
        unsigned = older_messages.ServerKeyExchange(
            group=flight.group, point=self._key.share, scheme=scheme, signature=b""
        )
        content = self.offered.parsed.random + self._hello.random + unsigned.params
        signature = signatures.sign(unsigned.scheme, key, content)
        self.leg.send(replace(unsigned, signature=signature).encode())

    def _scheme(self, key: PrivateKey) -> int:
        able = signatures.schemes_of(key, version=_TLS_1_2)
        for scheme in self.offered.parsed.signature_algorithms:
            if scheme in able and self.chosen.allows(scheme):
                return scheme
        raise TlsError(Alert.HANDSHAKE_FAILURE, "no signature scheme that the client accepts")

    # The client's answer

    def _take_certificate(self, message: Message) -> None:
        _, body = self.leg.expect(message, HandshakeType.CERTIFICATE)
        self._has_certificate = bool(older_messages.Certificate12.parse(body).chain)
        self.leg.transcript.add(message[1])
        self.take = self._take_exchange

    def _take_verify(self, message: Message) -> None:
        """Nobody here relies on it."""
        _, body = self.leg.expect(message, HandshakeType.CERTIFICATE_VERIFY)
        messages.CertificateVerify.parse(body)
        self.leg.transcript.add(message[1])
        self.take = self._take_change

    def _take_exchange(self, message: Message) -> None:
        _, body = self.leg.expect(message, HandshakeType.CLIENT_KEY_EXCHANGE)
        assert self._key
        premaster = self._key.agree(older_messages.ClientKeyExchange.parse(body).point)
        self.leg.transcript.add(message[1])
        self._session = Session.agreed(
            self.chosen,
            premaster,
            self.leg.transcript,
            client_random=self.offered.parsed.random,
            server_random=self._hello.random,
        )
        self.leg.log("CLIENT_RANDOM", self._session.master)
        self.take = self._take_verify if self._has_certificate else self._take_change

    def _take_change(self, message: Message) -> None:
        if message[0] != CHANGE_CIPHER_SPEC:
            raise TlsError(Alert.UNEXPECTED_MESSAGE, "no ChangeCipherSpec before Finished")
        assert self._session
        self.leg.read_with(self._session.protection(of_client=True))
        self.take = self._take_finished

    def _take_finished(self, message: Message) -> ClientFinished:
        assert self._session
        _, body = self.leg.expect(message, HandshakeType.FINISHED)
        check_finished(self._session.finished(self.leg.transcript, of_client=True), body)
        self.leg.end_flight()
        self.leg.transcript.add(message[1])
        self.take = None
        return ClientFinished(b"", self._has_certificate)

    # The end

    def finish(self, ticket: older_messages.NewSessionTicket12 | None) -> None:
        """Send the last messages; in a resumed session they are the first ones of the answer."""
        assert self._session
        leg = self.leg
        if ticket:
            leg.send(ticket.encode())
        verify_data = self._session.finished(leg.transcript, of_client=False)
        leg.send_change_cipher_spec()
        leg.records_out.protection = self._session.protection(of_client=False)
        leg.send(messages.Finished(verify_data).encode())

    @property
    def session_id(self) -> bytes:
        """The client's where a session is resumed, else ours."""
        return self._hello.session_id

    @property
    def master(self) -> bytes:
        """The session's secret with the client."""
        assert self._session
        return self._session.master
