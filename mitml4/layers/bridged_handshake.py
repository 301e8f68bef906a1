"""Both TLS handshakes of one flow, bridged message by message (`tls/bridge`): the server gets the
client's own hello.

Until the client has been answered, the bridge can give the flow back (`NotBridged`): OpenSSL then
does both handshakes, on another connection to the server.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

import trio
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPrivateKey

from mitml4.dataclass import dataclass, replace
from mitml4.layers.client_handshake import HANDSHAKE_S, ClientHandshake
from mitml4.layers.handshake import GivenUp, Handshake, Intercepted
from mitml4.layers.layer import HandshakeError
from mitml4.layers.redial import Redial
from mitml4.net.stream import Stream, StreamTruncated, Transport
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.tls.alerts import Alert, TlsError, alert_name
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.names import cipher_name, group_name, version_name
from mitml4.tls.bridge.connection import Connection
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.flight import ClientFinished, Flight, Shown
from mitml4.tls.bridge.identity import Identity
from mitml4.tls.bridge.leg import Leg, PeerAlert
from mitml4.tls.bridge.legs import Legs
from mitml4.tls.bridge.messages import NewSessionTicket
from mitml4.tls.bridge.tickets import SiteTickets
from mitml4.tls.bridged_stream import BridgedStream
from mitml4.tls.failure import TlsFailure
from mitml4.tls.pinning import CLIENT_CERTIFICATE
from mitml4.tls.presented import Presented

__all__ = ["BridgedHandshake", "NotBridged"]

_TLS_1_3: Final = 0x0304
_UNKNOWN_KEY: Final = "pre-shared key"
_CLOSED_SESSION: Final = "resumes a session that was passed through"
_SCRATCH: Final = memoryview(bytearray(1 << 16))
"""What is received goes through it; nothing waits in between."""


@dataclass(frozen=True, slots=True)
class NotBridged:
    """OpenSSL has to do the handshakes."""

    reason: str
    server_side: Stream | None = None
    """Another connection; None: nothing was sent on the first one."""
    stays_closed: bool = False
    """OpenSSL has no answer either: it is passed through."""


class BridgedHandshake(Handshake):
    """Both handshakes of one flow by the bridge."""

    legs: Legs
    _server_side: BridgedStream | None = None
    """If its handshake is over before the client's."""

    async def run(self, again: Redial | None) -> Intercepted | GivenUp | NotBridged:
        """`again`: how OpenSSL gets another connection. Raises HandshakeError, OSError."""
        self._again = again
        self._early_tickets: list[NewSessionTicket] = []
        try:
            self.legs = self._begin()
        except CannotBridge as reason:
            offers_1_3 = _TLS_1_3 in self.hello.supported_versions
            return NotBridged(str(reason), stays_closed=offers_1_3)
        except TlsError as error:
            if error.alert != Alert.DECRYPT_ERROR:  # the server refuses such a hello itself
                return NotBridged("not openable", stays_closed=True)
            self.report("client", "protocol", error.message)
            await self._refuse_client(error.alert)
        if self.legs.hello.offers_unknown_session and self.visit.has_closed_sessions:
            return NotBridged(_CLOSED_SESSION, stays_closed=True)
        try:
            flight = await self._hear_server()
        except CannotBridge as reason:
            return await self._give_back(str(reason))
        if isinstance(flight, GivenUp):
            return flight
        self._describe(flight)
        shown = await self._choose_leaf(flight)
        if isinstance(shown, GivenUp):
            return shown
        client_side = await self._accept(shown)
        server_side = self._server_side or self._open_server()
        if finished := self.legs.server.to_send():
            server_side.send_with_data(finished)
        if not self._has_client_spoken():
            server_side.flush_nowait()
        self._relay_tickets(server_side, client_side)
        if certificate := self.details.certificate:
            digest = bytes.fromhex(certificate.sha256)
            server_side.connection.renegotiable = self.legs.renegotiable(digest)
        return self.intercepted(client_side, server_side)

    def _begin(self) -> Legs:
        hello = self.bridge.up.glance()[: self.hello.wire_length]
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

    async def _give_back(self, reason: str) -> NotBridged:
        """Let OpenSSL do it, on another connection. Raises HandshakeError if there is none."""
        self.tools.engine_memory.forced(self.engine_site, reason)
        server_side = None
        if not self.legs.is_committed and self._again:
            server_side = await self._again.connect()
        if server_side is None:
            await self._send(self.bridge.server_side, self.legs.server.fail(Alert.USER_CANCELED))
            await self.pass_on_failure(TlsFailure(reason))
        return NotBridged(reason, server_side)

    # The server

    async def _hear_server(self) -> Flight | GivenUp:
        """The server's whole flight. Raises CannotBridge, HandshakeError, OSError."""
        while True:
            try:
                given_up = await self.meet_server(self._read_server)
            except TlsFailure as failure:
                if given_up := await self._leave_key_to_client():
                    return given_up
                await self.pass_on_failure(failure)
            except TlsError as error:
                return await self._refuse_server(error)
            if given_up:
                return given_up
            if self._flight:
                return self._flight
            await self._relay_retry()

    _flight: Flight | None = None

    async def _read_server(self) -> GivenUp | None:
        """Until the server has said all, or asks for another hello."""
        legs, below = self.legs, self.bridge.server_side
        await below.send_all(memoryview(legs.server.to_send()))
        was_committed = legs.is_committed
        while legs.is_committed == was_committed:
            match legs.server_event():
                case Flight() as flight:
                    self._flight = flight
                    return None
                case PeerAlert(alert):
                    _raise_alert(alert)
                case _ if legs.is_committed == was_committed:
                    await _receive(below, legs.server)
        return None

    async def _leave_key_to_client(self) -> GivenUp | None:
        """The server has refused a hello whose keys we do not know, and replaced by random bytes:
        it may want one of these, and has no certificate."""
        hello = self.legs.hello
        knows_all = hello.identities == (1 if hello.ticket else 0)
        return None if knows_all else await self.give_up(_UNKNOWN_KEY)

    async def _refuse_server(self, error: TlsError) -> GivenUp:
        """The server violates the protocol: the client is to see that itself."""
        await self._send(self.bridge.server_side, self.legs.server.fail(error.alert))
        given_up = None if self.legs.is_committed else await self.give_up(error.message)
        if given_up is None:
            self.visit.needs(error.message)
            await self.pass_on_failure(TlsFailure(error.message))
        return given_up

    async def _relay_retry(self) -> None:
        """Tell the client that the server wants another hello, and wait for it."""
        legs, below = self.legs, self.bridge.client_side
        below.discard(self.hello.wire_length)
        self.redial = None  # which would send a hello that has been answered
        try:
            with trio.fail_after(HANDSHAKE_S):
                await below.send_all(memoryview(legs.client.to_send()))
                first = legs.hello
                while legs.hello is first:
                    match legs.client_event():
                        case PeerAlert(alert):
                            self.report("client", "alert", alert_name(alert))
                            await self._end_server(alert, False)
                            below.close()
                            raise HandshakeError
                        case _ if legs.hello is first:
                            await _receive(below, legs.client)
        except trio.TooSlowError:
            self.report("client", "timeout", "the client does not answer the retry")
        except StreamTruncated:
            self.report("client", "reset", "closed by the client before our certificate")
            await self._end_server(None, False)
            below.close()
            raise HandshakeError from None
        except TlsError as error:
            self.report("client", "protocol", error.message)
            await self._refuse_client(error.alert)
        else:
            return
        self.abort()

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
        verdict = await self.verify(presented, self.bridge.server_side)
        if isinstance(verdict, GivenUp):
            return verdict
        leaf = await self.make_leaf(presented, verdict, flight.version)
        self.legs.tickets.seen = self.details.certificate
        return Shown(chain=leaf.chain_der, key=leaf.key, staple=leaf.staple)

    async def _take_request(self) -> GivenUp | None:
        """The server asks for a client's certificate."""
        given_up: GivenUp | BridgedStream | None = None
        if self.legs.identity:
            return None
        if not self.answers_request:
            given_up = await self.leave_request_to_client(self.bridge.server_side)
        given_up = given_up or await self._finish_server(CLIENT_CERTIFICATE)
        if isinstance(given_up, BridgedStream):
            return await self.wait_request_verdict(given_up)
        if given_up is None and not self.answers_request:
            self.error("server", "certificate", "the server asks for a client certificate")
        return given_up

    async def give_up(self, reason: str, first: Stream | None = None) -> GivenUp | None:
        """A server may serve its connections one after the other. So the handshake of a `first`
        connection is finished before another one has to be answered."""
        if first and self.redial:
            finished = await self._finish_server(reason)
            if isinstance(finished, GivenUp):
                return finished
            first = finished or first
        return await super().give_up(reason, first)

    async def _finish_server(self, reason: str) -> BridgedStream | GivenUp | None:
        """Finish the server's handshake before the client is answered; None if a part
        of the answer is the client's.

        `reason`: why interception is given up if the server refuses. Raises HandshakeError.
        """
        legs, below = self.legs, self.bridge.server_side
        if self._server_side or not legs.can_answer_first:
            return self._server_side
        legs.answer_first()
        failure = None
        reset: OSError | None = None
        try:
            await below.send_all(memoryview(legs.server.to_send()))
            await self._hear_finished()
        except TlsFailure as refusal:
            failure = refusal
        except TlsError as error:
            await self._send(below, legs.server.fail(error.alert))
            failure = TlsFailure(error.message)
        except OSError as error:
            reset = error
        except (StreamTruncated, trio.TooSlowError):
            pass
        else:
            self._server_side = self._open_server()
            return self._server_side
        given_up = await super().give_up(reason)
        if given_up is None:
            self.visit.needs(reason)
            if reset:
                raise reset
            await self.pass_on_failure(failure)
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
            await self._refuse_client(error.alert)
        handshake = ClientHandshake(
            client_side=below,
            server_side=self.bridge.server_side,
            end_server=self._end_server,
            visit=self.visit,
            error=partial(self.error, "client"),
        )
        await handshake.run(self._read_client)
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
                await _receive(below, legs.client)
        except TlsError as error:
            await self._send(below, legs.client.fail(error.alert))
            raise TlsFailure(error.message) from None
        if isinstance(event, PeerAlert):
            _raise_alert(event.alert)
        return event

    async def _hear_end(self) -> None:
        """The server's Finished, which TLS 1.2 has last, goes to the client."""
        legs, below = self.legs, self.bridge.server_side
        try:
            await self._hear_finished()
        except TlsError as error:
            await self._send(below, legs.server.fail(error.alert))
            self.error("server", "protocol", error.message)
        except TlsFailure as failure:
            alert = failure.alert or Alert.INTERNAL_ERROR
            self.error("server", "alert", alert_name(alert))
            await self._send(self.bridge.client_side, legs.client.fail(alert))
        except StreamTruncated:
            self.error("server", "reset", "the server closed the connection during the handshake")
        except trio.TooSlowError:
            self.error("server", "timeout", "the server does not finish the handshake")
        else:
            return
        _close(self.bridge.client_side)
        below.close()
        raise HandshakeError

    async def _hear_finished(self) -> None:
        """The end of the server's handshake.

        Raises TlsError, TlsFailure, StreamTruncated, OSError, trio.TooSlowError.
        """
        legs = self.legs
        with trio.fail_after(HANDSHAKE_S):
            while not legs.has_server_finished:
                match legs.server_event():
                    case PeerAlert(alert):
                        _raise_alert(alert)
                    case _ if not legs.has_server_finished:
                        await _receive(self.bridge.server_side, legs.server)

    async def _end_server(self, alert: int | None, is_reset: bool) -> None:
        """The client has ended its handshake: the server gets the same alert, or the same end."""
        server_side = self.bridge.server_side
        if is_reset:
            server_side.abort()
            return
        if alert is not None:
            await self._send(server_side, self.legs.server.fail(alert))
        _close(server_side)

    async def _refuse_client(self, alert: int) -> NoReturn:
        """The client is at fault: it gets this alert. No server is told."""
        legs = getattr(self, "legs", None)
        record = legs.client.fail(alert) if legs else bytes([21, 3, 3, 0, 2, 2, alert])
        await self._send(self.bridge.client_side, record)
        self.bridge.client_side.close()
        self.bridge.server_side.abort()
        raise HandshakeError

    async def _send(self, stream: Stream, data: bytes) -> None:
        """Send a last record, if that is still possible."""
        with suppress(OSError), trio.move_on_after(1):
            await stream.send_all(memoryview(data))

    # The result

    def _open_server(self) -> BridgedStream:
        legs = self.legs
        connection = Connection(legs.server.records_in, legs.server.records_out, is_client=True)
        connection.on_ticket = self._early_tickets.append
        connection.answer_request = legs.late_answer()
        if legs.server.older:
            connection.on_renegotiation = partial(
                self.tools.engine_memory.forced, self.engine_site, "renegotiation"
            )
        return BridgedStream(self.bridge.server_side, connection)

    def _has_client_spoken(self) -> bool:
        """Whether data of the client's has come: it goes to the server with our Finished."""
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

        for ticket in self._early_tickets:
            relay_ticket(ticket)
        server_side.connection.on_ticket = relay_ticket
        server_side.feeds = client_side


def _close(stream: Stream) -> None:
    """The far end gets all that was sent, and a FIN: closing with unread bytes sends a reset."""
    stream.discard(len(stream.peek_nowait(MAX_PEEK + 1)))
    stream.close()


def _seen(seen: object) -> CertificateDetails | None:
    return seen if isinstance(seen, CertificateDetails) else None


def _raise_alert(alert: int) -> NoReturn:
    """The other end has sent this. Raises TlsFailure; StreamTruncated for close_notify."""
    if alert == Alert.CLOSE_NOTIFY:
        raise StreamTruncated("closed during the handshake")
    raise TlsFailure(f"the alert {alert_name(alert)}", alert)


async def _receive(stream: Stream, leg: Leg) -> None:
    """Feed a leg with what comes next. Raises StreamTruncated at the end, OSError."""
    while (count := stream.receive_nowait(_SCRATCH)) is None:
        await stream.wait_receivable()
    if not count:
        raise StreamTruncated("closed during the handshake")
    leg.receive(_SCRATCH[:count])
