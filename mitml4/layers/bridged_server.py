"""The server's half of a bridged handshake, and how each side is ended.

`hear_server` is everything up to the server's whole flight, with a HelloRetryRequest relayed in
between; `finish_server` is the rest of it, where the server has to be answered before the client
is.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final, NoReturn

import trio

from mitml4.layers.client_handshake import HANDSHAKE_S
from mitml4.layers.handshake import GivenUp, Handshake
from mitml4.layers.layer import HandshakeError
from mitml4.net.stream import Stream, StreamTruncated, Transport
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.tls.alerts import Alert, TlsError, alert_name
from mitml4.tasks import fail_after, first_of
from mitml4.tls.bridge.connection import Connection
from mitml4.tls.bridge.flight import Flight
from mitml4.tls.bridge.leg import Leg, PeerAlert
from mitml4.tls.bridge.legs import Legs
from mitml4.tls.bridge.messages import NewSessionTicket
from mitml4.tls.bridged_stream import BridgedStream
from mitml4.tls.failure import TlsFailure

__all__ = ["BridgedServer", "close", "raise_alert", "receive"]

_UNKNOWN_KEY: Final = "pre-shared key"
_SCRATCH: Final = memoryview(bytearray(1 << 16))
"""What is received goes through it; nothing waits in between."""


class BridgedServer(Handshake):
    """The handshake with the server, by the bridge."""

    legs: Legs
    server_stream: BridgedStream | None = None
    """If its handshake is over before the client's."""
    early_tickets: list[NewSessionTicket]
    """Those that came before the client's handshake was over."""
    _flight: Flight | None = None
    _unsent: bytes = b""
    """What is to be sent to the server."""

    async def hear_server(self) -> Flight | GivenUp:
        """The server's whole flight. Raises CannotBridge, HandshakeError, OSError."""
        while True:
            try:
                goes_on = isinstance(self.bridge.server_side, Transport)
                given_up = await self.meet_server(self._read_server, goes_on=goes_on)
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

    async def _read_server(self) -> GivenUp | None:
        """Until the server has said all, or asks for another hello. If the server's side is a plain
        connection, it may be cancelled, and called again."""
        legs, below = self.legs, self.bridge.server_side
        self._unsent += legs.server.to_send()
        while self._unsent:
            sent = await below.send_some(self._unsent)
            self._unsent = self._unsent[sent:]
        was_committed = legs.is_committed
        while legs.is_committed == was_committed:
            match legs.server_event():
                case Flight() as flight:
                    self._flight = flight
                    return None
                case PeerAlert(alert):
                    self.has_said_end = alert == Alert.CLOSE_NOTIFY
                    raise_alert(alert)
                case _ if legs.is_committed == was_committed:
                    await receive(below, legs.server)
        return None

    async def _leave_key_to_client(self) -> GivenUp | None:
        """The server has refused a hello whose keys we do not know, and replaced by random bytes:
        it may want one of these, and has no certificate."""
        hello = self.legs.hello
        knows_all = hello.identities == (1 if hello.ticket else 0)
        return None if knows_all else await self.give_up(_UNKNOWN_KEY)

    async def _refuse_server(self, error: TlsError) -> GivenUp:
        """The server violates the protocol: the client is to see that itself."""
        await self.send_last(self.bridge.server_side, self.legs.server.fail(error.alert))
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
            with fail_after(HANDSHAKE_S):
                await below.send_all(memoryview(legs.client.to_send()))
                reset = self.bridge.server_side.transport.wait_reset
                await first_of(self._read_second_hello, reset)
        except trio.TooSlowError:
            self.report("client", "timeout", "the client does not answer the retry")
        except StreamTruncated:
            self.report("client", "reset", "closed by the client before our certificate")
            await self.end_server(None, False)
            below.close()
            raise HandshakeError from None
        except TlsError as error:
            self.report("client", "protocol", error.message)
            await self.refuse_client(error.alert)
        else:
            return
        self.abort()

    async def _read_second_hello(self) -> None:
        legs, below = self.legs, self.bridge.client_side
        first = legs.hello
        while legs.hello is first:
            match legs.client_event():
                case PeerAlert(alert):
                    self.report("client", "alert", alert_name(alert))
                    await self.end_server(alert, False)
                    below.close()
                    raise HandshakeError
                case _ if legs.hello is first:
                    await receive(below, legs.client)

    # Before the client is answered

    async def give_up(self, reason: str, first: Stream | None = None) -> GivenUp | None:
        """A server may serve its connections one after the other. So the handshake of a `first`
        connection is finished before another one has to be answered."""
        if first and self.redial:
            finished = await self.finish_server(reason)
            if isinstance(finished, GivenUp):
                return finished
            first = finished or first
        return await super().give_up(reason, first)

    async def finish_server(self, reason: str) -> BridgedStream | GivenUp | None:
        """Finish the server's handshake before the client is answered; None if a part
        of the answer is the client's.

        `reason`: why interception is given up if the server refuses. Raises HandshakeError.
        """
        legs, below = self.legs, self.bridge.server_side
        if self.server_stream or not legs.can_answer_first:
            return self.server_stream
        legs.answer_first()
        failure = None
        reset: OSError | None = None
        try:
            await below.send_all(memoryview(legs.server.to_send()))
            await self.hear_finished()
        except TlsFailure as refusal:
            failure = refusal.with_traceback(None)
        except TlsError as error:
            await self.send_last(below, legs.server.fail(error.alert))
            failure = TlsFailure(error.message)
        except OSError as error:
            reset = error.with_traceback(None)
        except (StreamTruncated, trio.TooSlowError):
            pass
        else:
            self.server_stream = self.open_server()
            return self.server_stream
        given_up = await super().give_up(reason)
        if given_up is None:
            self.visit.needs(reason)
            if reset:
                try:
                    raise reset
                finally:
                    del reset  # else the error knows this frame, and this frame the error
            await self.pass_on_failure(failure)
        return given_up

    # The end

    async def hear_finished(self) -> None:
        """The end of the server's handshake.

        Raises TlsError, TlsFailure, StreamTruncated, OSError, trio.TooSlowError.
        """
        legs = self.legs
        with fail_after(HANDSHAKE_S):
            while not legs.has_server_finished:
                match legs.server_event():
                    case PeerAlert(alert):
                        raise_alert(alert)
                    case _ if not legs.has_server_finished:
                        await receive(self.bridge.server_side, legs.server)

    async def end_server(self, alert: int | None, is_reset: bool) -> None:
        """The client has ended its handshake: the server gets the same alert, or the same end."""
        server_side = self.bridge.server_side
        if is_reset:
            server_side.abort()
            return
        if alert is not None:
            await self.send_last(server_side, self.legs.server.fail(alert))
        close(server_side)

    async def refuse_client(self, alert: int) -> NoReturn:
        """The client is at fault: it gets this alert. No server is told."""
        legs = getattr(self, "legs", None)
        record = legs.client.fail(alert) if legs else bytes([21, 3, 3, 0, 2, 2, alert])
        await self.send_last(self.bridge.client_side, record)
        self.bridge.client_side.close()
        self.bridge.server_side.abort()
        raise HandshakeError

    async def send_last(self, stream: Stream, data: bytes) -> None:
        """Send a last record, if that is still possible."""
        with suppress(OSError), trio.move_on_after(1):
            await stream.send_all(memoryview(data))

    def open_server(self) -> BridgedStream:
        legs = self.legs
        connection = Connection(legs.server.records_in, legs.server.records_out, is_client=True)
        connection.on_ticket = self.early_tickets.append
        connection.answer_request = legs.late_answer()
        if legs.server.older:
            connection.on_renegotiation = partial(
                self.tools.engine_memory.forced, self.engine_site, "renegotiation"
            )
        return BridgedStream(self.bridge.server_side, connection)


def close(stream: Stream) -> None:
    """The far end gets all that was sent, and a FIN: closing with unread bytes sends a reset."""
    stream.discard(len(stream.peek_nowait(MAX_PEEK + 1)))
    stream.close()


def raise_alert(alert: int) -> NoReturn:
    """The other end has sent this. Raises TlsFailure; StreamTruncated for close_notify."""
    if alert == Alert.CLOSE_NOTIFY:
        raise StreamTruncated("closed during the handshake")
    raise TlsFailure(f"the alert {alert_name(alert)}", alert)


async def receive(stream: Stream, leg: Leg) -> None:
    """Feed a leg with what comes next. Raises StreamTruncated at the end, OSError."""
    count = None
    while count is None:
        await stream.wait_receivable()  # mostly nothing is there yet
        count = stream.receive_nowait(_SCRATCH)
        if count is None:
            count = stream.receive_urgent(_SCRATCH)
    if not count:
        raise StreamTruncated("closed during the handshake")
    leg.receive(_SCRATCH[:count])
