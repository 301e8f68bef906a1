"""Both TLS handshakes of one flow, bridged message by message (`tls/bridge`): the server gets the
client's own hello.

Until the client has been answered, the bridge can give the flow back (`NotBridged`): OpenSSL then
does both handshakes, on another connection to the server.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import trio
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPrivateKey

from mitml4.dataclass import dataclass, replace
from mitml4.layers.bridged_server import BridgedServer, close, raise_alert, receive
from mitml4.layers.client_handshake import ClientHandshake
from mitml4.layers.handshake import GivenUp, Intercepted
from mitml4.layers.layer import HandshakeError
from mitml4.layers.redial import Redial
from mitml4.net.stream import Stream, StreamTruncated, Transport
from mitml4.protocols.tls.alerts import Alert, TlsError, alert_name
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.names import cipher_name, group_name, version_name
from mitml4.tls.bridge.connection import Connection
from mitml4.tls.bridge.errors import CannotBridge, StaysClosed
from mitml4.tls.bridge.flight import ClientFinished, Flight, Shown
from mitml4.tls.bridge.identity import Identity
from mitml4.tls.bridge.leg import PeerAlert
from mitml4.tls.bridge.legs import Legs
from mitml4.tls.bridge.messages import NewSessionTicket
from mitml4.tls.bridge.tickets import SiteTickets
from mitml4.tls.bridged_stream import BridgedStream
from mitml4.tls.failure import TlsFailure
from mitml4.tls.pinning import CLIENT_CERTIFICATE
from mitml4.tls.presented import Presented

__all__ = ["BridgedHandshake", "NotBridged"]

_TLS_1_3: Final = 0x0304
_CLOSED_SESSION: Final = "resumes a session that was passed through"


@dataclass(frozen=True, slots=True)
class NotBridged:
    """OpenSSL has to do the handshakes."""

    reason: str
    server_side: Stream | None = None
    """Another connection; None: nothing was sent on the first one."""
    stays_closed: bool = False
    """OpenSSL has no answer either: it is passed through."""


class BridgedHandshake(BridgedServer):
    """Both handshakes of one flow by the bridge."""

    async def run(self, raw: bytes, again: Redial | None) -> Intercepted | GivenUp | NotBridged:
        """`raw`: the bytes of the client's hello; `again`: how OpenSSL gets another connection.
        Raises HandshakeError, OSError."""
        self._again = again
        self.early_tickets = []
        try:
            self.legs = self._begin(raw)
        except CannotBridge as reason:
            offers_1_3 = _TLS_1_3 in self.hello.supported_versions
            return NotBridged(str(reason), stays_closed=offers_1_3)
        except TlsError as error:
            if error.alert != Alert.DECRYPT_ERROR:  # the server refuses such a hello itself
                return NotBridged("not openable", stays_closed=True)
            self.report("client", "protocol", error.message)
            await self.refuse_client(error.alert)
        if self.legs.hello.offers_unknown_session and self.visit.has_closed_sessions:
            return NotBridged(_CLOSED_SESSION, stays_closed=True)
        try:
            flight = await self.hear_server()
        except CannotBridge as reason:
            return await self._give_back(reason)
        if isinstance(flight, GivenUp):
            return flight
        self._describe(flight)
        shown = await self._choose_leaf(flight)
        if isinstance(shown, GivenUp):
            return shown
        client_side = await self._accept(shown)
        server_side = self.server_stream or self.open_server()
        if finished := self.legs.server.to_send():
            server_side.send_with_data(finished)
        if not (client_side.connection.kept or self._has_client_spoken()):
            server_side.flush_nowait()
        self._relay_tickets(server_side, client_side)
        if certificate := self.details.certificate:
            digest = bytes.fromhex(certificate.sha256)
            server_side.connection.renegotiable = self.legs.renegotiable(digest)
        return self.intercepted(client_side, server_side)

    def _begin(self, hello: bytes) -> Legs:
        return Legs(
            hello,
            parsed=self.hello,
            tickets=SiteTickets(self.tools.tickets, self.visit.site.host),
            keylog=self.tools.contexts.keylog,
            identity=self._identity(),
        )

    def _identity(self) -> Identity | None:
        """Ours, for a server that asks for a client's certificate. TLS 1.3 has no DSA."""
        given = self.tools.contexts.client_identity
        if given is None or isinstance(given.key, DSAPrivateKey):
            return None
        return Identity(given.chain_der, given.key)

    async def _give_back(self, cause: CannotBridge) -> NotBridged | GivenUp:
        """Let nobody do it, or OpenSSL, on another connection. Raises HandshakeError if there is no
        other one."""
        reason, server_side = str(cause), None
        if isinstance(cause, StaysClosed):
            if given_up := await self.give_up(reason):
                return given_up
            self.visit.needs(reason)
        else:
            self.tools.engine_memory.forced(self.engine_site, reason)
        if not self.legs.is_committed and self._again:
            server_side = await self._again.connect()
        if server_side is None:
            await self.send_last(
                self.bridge.server_side, self.legs.server.fail(Alert.USER_CANCELED)
            )
            await self.pass_on_failure(TlsFailure(reason))
        return NotBridged(reason, server_side)

    def _describe(self, flight: Flight) -> None:
        self.details = replace(
            self.details,
            alpn=flight.alpn,
            version=version_name(flight.version),
            cipher=cipher_name(flight.hello.cipher_suite),
            group=None if flight.group is None else group_name(flight.group),
            resumed=flight.ticket is not None,
            server_hello="exact",
            handshake_s=self.elapsed_s,
        )

    # The certificate

    async def _choose_leaf(self, flight: Flight) -> Shown | GivenUp | None:
        """What the client is shown; None in a resumed session. Raises HandshakeError."""
        assert self.legs.tickets
        if flight.ticket:
            self.legs.tickets.seen = flight.ticket.seen
            self.details = replace(self.details, certificate=_seen(flight.ticket.seen))
            self.announce()
            return None
        if flight.asks_certificate and (given_up := await self._take_request()):
            return given_up
        presented = Presented(chain=flight.chain, staple=flight.staple)
        verification = await self.verify(presented, self.bridge.server_side)
        if isinstance(verification, GivenUp):
            return verification
        leaf = await self.make_leaf(presented, verification, flight.version)
        if leaf.is_cached:  # tickets keep what was found, and the server decides how much that is
            self.legs.tickets.seen = self.details.certificate
        # The client is asked again: another program may look the same, and have a certificate.
        asks = flight.asks_certificate and self.visit.declines and not self.legs.identity
        return Shown(chain=leaf.chain_der, key=leaf.key, staple=leaf.staple, asks=asks)

    async def _take_request(self) -> GivenUp | None:
        """The server asks for a client's certificate."""
        given_up: GivenUp | BridgedStream | None = None
        if self.legs.identity:
            return None
        if not self.answers_request:
            given_up = await self.leave_request_to_client(self.bridge.server_side)
        given_up = given_up or await self.finish_server(CLIENT_CERTIFICATE)
        if isinstance(given_up, BridgedStream):
            return await self.wait_request_verdict(given_up)
        if given_up is None and not self.answers_request:
            self.error("server", "certificate", "the server asks for a client certificate")
        return given_up

    # The client

    async def _accept(self, shown: Shown | None) -> BridgedStream:
        legs, below = self.legs, self.bridge.client_side
        if not legs.is_committed:
            below.discard(self.hello.wire_length)
        try:
            legs.show(shown)
        except TlsError as error:
            self.error("client", "protocol", error.message)
            await self.refuse_client(error.alert)
        handshake = ClientHandshake(
            client_side=below,
            server_side=self.bridge.server_side,
            end_server=self.end_server,
            visit=self.visit,
            error=partial(self.error, "client"),
        )
        finished = await handshake.run(self._read_client)
        if finished.has_certificate:
            self.visit.answered_request(empty=False)
            self.error("server", "certificate", "the server asks for a client certificate")
        if not legs.has_server_finished:
            await self.bridge.server_side.send_all(memoryview(legs.server.to_send()))
            await self._hear_end()
        await below.send_all(memoryview(legs.client.to_send()))
        connection = Connection(legs.client.records_in, legs.client.records_out, is_client=False)
        stream = BridgedStream(below, connection)
        handshake.watch_opening(stream, is_resumed=shown is None)
        return stream

    async def _read_client(self) -> ClientFinished:
        """Send the server's flight, and read the client's. Raises TlsFailure, StreamTruncated,
        OSError."""
        legs, below = self.legs, self.bridge.client_side
        await below.send_all(memoryview(legs.client.to_send()))
        try:
            while not (event := legs.client_event()):
                await receive(below, legs.client)
        except TlsError as error:
            await self.send_last(below, legs.client.fail(error.alert))
            raise TlsFailure(error.message) from None
        if isinstance(event, PeerAlert):
            raise_alert(event.alert)
        return event

    async def _hear_end(self) -> None:
        """The server's Finished, which TLS 1.2 has last, goes to the client."""
        legs, below = self.legs, self.bridge.server_side
        try:
            await self.hear_finished()
        except TlsError as error:
            await self.send_last(below, legs.server.fail(error.alert))
            self.error("server", "protocol", error.message)
        except TlsFailure as failure:
            alert = failure.alert or Alert.INTERNAL_ERROR
            self.error("server", "alert", alert_name(alert))
            await self.send_last(self.bridge.client_side, legs.client.fail(alert))
        except StreamTruncated:
            self.error("server", "reset", "the server closed the connection during the handshake")
        except trio.TooSlowError:
            self.error("server", "timeout", "the server does not finish the handshake")
        else:
            return
        close(self.bridge.client_side)
        below.close()
        raise HandshakeError

    # The result

    def _has_client_spoken(self) -> bool:
        """Whether more has come from the client: its data goes to the server with our Finished."""
        below = self.bridge.client_side
        return isinstance(below, Transport) and below.unread_count() > 0

    def _relay_tickets(self, server_side: BridgedStream, client_side: BridgedStream) -> None:
        """The server's tickets become ours, once the client's handshake is over too."""
        relay = self.legs.ticket_relay()
        if relay is None:
            server_side.connection.on_ticket = None
            return

        def relay_ticket(ticket: NewSessionTicket) -> None:
            if message := relay.relay(ticket):
                client_side.connection.queue(message)

        for ticket in self.early_tickets:
            relay_ticket(ticket)
        server_side.connection.on_ticket = relay_ticket
        server_side.feeds = client_side


def _seen(seen: object) -> CertificateDetails | None:
    return seen if isinstance(seen, CertificateDetails) else None
