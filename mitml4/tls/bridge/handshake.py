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

from mitml4.tls.bridge.client_leg import ClientFinished, ClientLeg, SecondHello, Shown
from mitml4.tls.bridge.hello import RelayedHello, Replacements, relay_hello
from mitml4.tls.bridge.identity import Identity
from mitml4.tls.bridge.leg import KeyLog, PeerAlert
from mitml4.tls.bridge.server_leg import Flight, Retry, ServerLeg
from mitml4.tls.bridge.tickets import Ticket

__all__ = ["BridgedHandshake"]


class BridgedHandshake:
    """The handshake of a client, and the one with its server."""

    def __init__(
        self,
        hello: bytes,
        *,
        find_ticket: Callable[[bytes], Ticket | None] = lambda _: None,
        keylog: KeyLog | None = None,
        identity: Identity | None = None,
    ) -> None:
        """`hello`: the client's records, at least up to the end of its hello; `identity`: for a
        server that asks for a client's certificate.

        Raises TlsError if the client is to be refused, CannotBridge if its hello is nothing for
        this.
        """
        self._replacements = Replacements()
        self._find_ticket = find_ticket
        self._identity = identity
        relayed = self._relay(hello, b"")
        self.client = ClientLeg(relayed, keylog)
        self.server = ServerLeg(relayed, keylog)
        self.is_committed = False
        """Whether the client was sent something."""
        self._flight: Flight | None = None

    @property
    def hello(self) -> RelayedHello:
        """The hello that counts: the second one after a retry."""
        return self.client.hello

    def _relay(self, stream: bytes, prefix: bytes) -> RelayedHello:
        return relay_hello(
            stream, self._replacements, find_ticket=self._find_ticket, prefix=prefix
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
        if isinstance(event, Flight):
            self._flight = event
        return event

    def show(self, shown: Shown | None) -> None:
        """Answer the client as the server has, with this certificate; None: a resumed session.

        Raises TlsError where the client is at fault.
        """
        assert self._flight
        self.client.send_flight(self._flight, shown)
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
            self.server.finish(event.settings, self._identity)
        return event
