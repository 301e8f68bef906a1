"""Both handshakes of a bridged flow, as one conversation.

    the client's hello                ->  the same hello, with our keys
    a HelloRetryRequest               <-  the same               (both directions, at most once)
    the server's flight, checked      <-  `Flight`: the caller decides what the client is shown
    `show`: the same flight, with our certificate and keys
    the client's answer               ->  ours

Nothing but a retry goes to the client before its server's flight was checked, so until then the
caller can connect again and do otherwise (`is_committed`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.tls.bridge.client_leg import ClientLeg
from mitml4.tls.bridge.flight import (
    ClientFinished,
    Flight,
    Retry,
    SecondHello,
    ServerFinished,
    Shown,
)
from mitml4.tls.bridge.hello import RelayedHello, Replacements, relay_hello
from mitml4.tls.bridge.identity import MAX_LATE_SIGNATURES, Identity, answer_late_request
from mitml4.tls.bridge.leg import KeyLog, PeerAlert
from mitml4.tls.bridge.older_messages import NewSessionTicket12
from mitml4.tls.bridge.renegotiation import Renegotiable
from mitml4.tls.bridge.server_leg import ServerLeg
from mitml4.tls.bridge.tickets import SiteTickets, TicketRelay

__all__ = ["Legs"]


class Legs:
    """The handshake of a client, and the one with its server."""

    def __init__(
        self,
        hello: bytes,
        *,
        parsed: ClientHello | None = None,
        tickets: SiteTickets | None = None,
        keylog: KeyLog | None = None,
        identity: Identity | None = None,
    ) -> None:
        """`hello`: the client's records, at least up to the end of its hello, which is `parsed` if
        somebody has done that; `identity`: for a server that asks for a client's certificate.

        Raises TlsError if the client is to be refused, CannotBridge if its hello is nothing for
        this.
        """
        self._replacements = Replacements()
        self.tickets = tickets
        self._keylog = keylog
        self.identity = identity
        """What answers a server that asks for a client's certificate."""
        relayed = self._relay(hello, b"", parsed)
        self.client = ClientLeg(relayed, keylog)
        self.server = ServerLeg(relayed, keylog)
        self.is_committed = False
        """Whether the client was sent something."""
        self._flight: Flight | None = None
        self._server_finished: ServerFinished | None = None
        self._is_client_finished = False
        self._has_answered = False

    @property
    def has_server_finished(self) -> bool:
        """Whether the server's handshake is over."""
        return self._server_finished is not None

    @property
    def hello(self) -> RelayedHello:
        """The hello that counts: the second one after a retry."""
        return self.client.hello

    def _relay(
        self, stream: bytes, prefix: bytes, parsed: ClientHello | None = None
    ) -> RelayedHello:
        find = self.tickets.find if self.tickets else lambda _: None
        return relay_hello(
            stream, self._replacements, find_ticket=find, prefix=prefix, parsed=parsed
        )

    def server_event(self) -> Flight | PeerAlert | None:
        """What the server has done; None: it is to do more, or the client.

        Raises TlsError where the server is at fault, and CannotBridge.
        """
        event = self.server.next_event()
        if isinstance(event, Retry):
            self.client.send_retry(event.message)
            self.is_committed = True
            return None
        if isinstance(event, ServerFinished):
            self._server_finished = event
            if self._is_client_finished:
                self.client.finish(self._older_ticket(event.ticket))
            return None
        if isinstance(event, Flight):
            self._flight = event
        return event

    def show(self, shown: Shown | None) -> None:
        """Answer the client as the server has, with this certificate; None: a resumed session.

        Raises TlsError where the client is at fault.
        """
        assert self._flight
        self.client.send_flight(self._flight, shown)
        if self._flight.older and self._flight.ticket:
            self.client.finish(self._older_ticket(self._flight.new_ticket))
        self.is_committed = True

    def client_event(self) -> ClientFinished | PeerAlert | None:
        """What the client has done; None: it is to do more, or the server.

        Raises TlsError where the client is at fault, and CannotBridge.
        """
        event = self.client.next_event()
        if isinstance(event, SecondHello):
            relayed = self._relay(event.stream, self.server.transcript.first_messages)
            self.client.take_second_hello(relayed)
            self.server.send_retried(relayed)
            return None
        if isinstance(event, ClientFinished):
            self._is_client_finished = True
            assert self._flight
            if not self._has_answered:
                self._answer_server(event.settings)
            elif self._server_finished and self._flight.older:
                self.client.finish(self._older_ticket(self._server_finished.ticket))
        return event

    @property
    def can_answer_first(self) -> bool:
        """Whether the server can be answered before the client is: nothing in the answer is the
        client's."""
        return self._flight is not None and self._flight.settings is None

    def answer_first(self) -> None:
        """Answer the server before the client is answered."""
        self._answer_server(b"")

    def _answer_server(self, settings: bytes) -> None:
        assert self._flight
        self._has_answered = True
        self.server.finish(settings, self.identity)
        if not self._flight.older or self._flight.ticket:
            self._server_finished = ServerFinished(None)

    # Tickets

    def _older_ticket(self, message: NewSessionTicket12 | None) -> NewSessionTicket12 | None:
        """What the client gets of the server's ticket in TLS 1.2. A new session is kept by its id
        too."""
        flight = self._flight
        assert flight
        assert flight.older
        assert self.server.older
        assert self.client.older
        if self.tickets is None:
            return message and NewSessionTicket12(message.lifetime_hint, b"")
        make_ticket = partial(
            self.tickets.older,
            cipher_suite=flight.hello.cipher_suite,
            suite=flight.suite,
            extended=flight.older.extended,
            server_secret=self.server.older.master,
            client_secret=self.client.older.master,
        )
        if not flight.ticket:
            named = make_ticket(flight.hello.session_id)
            self.tickets.tickets.keep(self.client.older.session_id, named)
        return message and self.tickets.issue_older(message, make_ticket(message.ticket))

    def ticket_relay(self) -> TicketRelay | None:
        """What makes tickets for the client later, in TLS 1.3; None: it gets none."""
        flight = self._flight
        assert flight
        if self.tickets is None or flight.older or not self.hello.accepts_tickets:
            return None
        return TicketRelay(
            tickets=self.tickets,
            cipher_suite=flight.hello.cipher_suite,
            suite=flight.suite,
            server_resumption=self.server.resumption,
            client_resumption=self.client.resumption,
        )

    # Later requests

    def renegotiable(self, certificate: bytes) -> Renegotiable | None:
        """What lets the server renegotiate, in TLS 1.2; None: it has not promised to do that safely
        (RFC 5746), or speaks HTTP/2, which forbids it (RFC 9113 §9.2.1).

        `certificate`: the SHA-256 of the server's.
        """
        flight, older = self._flight, self.server.older
        assert flight
        if older is None or flight.alpn == b"h2":
            return None
        if Extension.RENEGOTIATION_INFO not in flight.hello.extensions:
            return None
        return Renegotiable(
            hello=self.hello.sent,
            certificate=certificate,
            extended=older.chosen.extended,
            ends=older.ends,
            identity=self.identity,
            keylog=self._keylog,
        )

    def late_answer(self) -> Callable[[bytes, bytes], bytes] | None:
        """What answers a server that asks for a certificate later (RFC 8446 §4.6.2), as
        `Connection.answer_request` has it; None: the client has not offered that. A server that
        asks again and again gets no certificate any more."""
        flight = self._flight
        assert flight
        if flight.older or not self.hello.parsed.has(Extension.POST_HANDSHAKE_AUTH):
            return None
        transcript, identity = self.server.transcript.copy(), self.identity
        name, left = flight.suite.hash, MAX_LATE_SIGNATURES

        def answer(request: bytes, secret: bytes) -> bytes:
            nonlocal left
            shown = identity if left else None
            left = max(left - 1, 0)
            return answer_late_request(request, shown, transcript.copy(), name, secret)

        return answer
