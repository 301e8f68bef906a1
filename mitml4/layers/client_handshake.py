"""The TLS handshake with the client, and how the client takes our certificate.

That applies to its next connections (`tls/pinning.py`): it sends an alert, closes during the
handshake, or closes right after it without a byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import trio

from mitml4.dataclass import dataclass, replace
from mitml4.layers.layer import HandshakeError
from mitml4.layers.report import Kind
from mitml4.net.stream import Stream, StreamTruncated
from mitml4.protocols.tls.alerts import Alert, alert_name
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.tls.failure import TlsFailure
from mitml4.tls.opened_stream import OpenedStream
from mitml4.tls.pinning import REFUSALS, Visit
from mitml4.tls.stream import TlsStream

__all__ = ["HANDSHAKE_S", "REJECTS_WITHIN_S", "ClientHandshake", "described"]

HANDSHAKE_S: Final = 30.0
REJECTS_WITHIN_S: Final = 1.0
"""A client that closes this soon after the handshake has rejected the certificate."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHandshake:
    """The handshake with one client."""

    client_side: Stream
    """It is closed if the handshake fails."""
    server_side: Stream
    """It is watched for a reset, and for bytes before that."""
    end_server: Callable[[int | None, bool], Awaitable[None]]
    """Ends the server's side if the handshake fails; given the client's fatal alert, if any, and
    whether to reset it: the client has ended in this way, or not at all."""
    visit: Visit
    error: Callable[[Kind, str], None]
    """Reports an error of the client's."""

    async def run(self, handshake: Callable[[], Awaitable[T]]) -> T:
        """What `handshake` returns once it is done.

        `handshake` raises TlsFailure, StreamTruncated, OSError, all of them because of the client.
        This raises HandshakeError, and OSError if the server was reset.
        """
        had_ended = self.client_side.transport.has_ended()
        server = self.server_side.transport
        alert: int | None = None
        is_reset = True
        resets: list[OSError] = []

        def note_reset() -> None:
            if error := self._reset_of_server():
                resets.append(error.with_traceback(None))  # which knows this frame
                scope.cancel()

        scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_S)
        try:
            with scope, server.watched(note_reset):
                return await handshake()
        except TlsFailure as failure:
            alert = failure.alert
            is_reset = alert is None
            self._report_failure(failure)
        except (StreamTruncated, ConnectionError) as error:
            is_reset = isinstance(error, ConnectionError)
            how = "reset" if is_reset else "closed"
            if had_ended:
                self.error("reset", f"{how} by the client before our certificate")
            else:
                self.error("certificate", f"{how} by the client after our certificate")
                self.visit.left()
        if resets:
            raise resets.pop()
        if scope.cancelled_caught:
            self.error("timeout", "the client does not finish the handshake")
        await self.end_server(alert, is_reset)
        self.client_side.close()
        raise HandshakeError

    def watch_opening(self, stream: OpenedStream, *, is_resumed: bool = False) -> None:
        """Learn from what the client sends first after the handshake.

        `is_resumed`: it was shown no certificate, so it cannot refuse one.
        """
        if is_resumed:
            stream.on_opening = self._note_data
        else:
            stream.on_opening = partial(self._note_opening, trio.current_time())

    def _reset_of_server(self) -> OSError | None:
        """The error, if the server has reset the connection, and has not sent data before that:
        then the client is reset at once."""
        try:
            self.server_side.transport.raise_reset()
        except OSError as error:
            with suppress(OSError):
                return None if self.server_side.peek_nowait(1) else error
            return error
        return None

    def _report_failure(self, failure: TlsFailure) -> None:
        if failure.alert is None:  # we cannot do with this client what the server could
            self.error("protocol", failure.reason)
            self.visit.needs(failure.reason)
        elif failure.alert in REFUSALS:
            self.error("certificate", REFUSALS[failure.alert])
            self.visit.refused()
        else:
            self.error("alert", alert_name(failure.alert))
            if failure.alert != Alert.ECH_REQUIRED:
                self.visit.left()

    def _note_data(self, first: int | Exception) -> None:
        if isinstance(first, int) and first:
            self.visit.accepted()

    def _note_opening(self, shook_hands_at: float, first: int | Exception) -> None:
        """What the client sends first after the handshake; see `OpenedStream.on_opening`.

        Some clients check the certificate only then, and close without sending a byte.
        """
        alert = first.alert if isinstance(first, TlsFailure) else None
        if isinstance(first, int) and first:
            self.visit.accepted()
        elif alert in REFUSALS:
            self.error("certificate", REFUSALS[alert])
            self.visit.refused()
        elif alert == Alert.ECH_REQUIRED:
            # RFC 9849 §6.1.6: the server has not taken its encrypted hello. It comes again without.
            self.error("alert", alert_name(alert))
        elif trio.current_time() - shook_hands_at < REJECTS_WITHIN_S and self.visit.left():
            self.error("certificate", "ended by the client after the handshake, again")


def described(details: TlsDetails, stream: TlsStream, alpn: bytes) -> TlsDetails:
    """The details of a handshake with a client alone, as far as it has come."""
    connection = stream.connection
    return replace(
        details,
        alpn=alpn or None,
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name(),
        resumed=False,
    )
