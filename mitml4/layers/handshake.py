"""What both TLS handshakes of one flow need, whichever engine does them.

An engine is a subclass of `Handshake`. It does the server's handshake first, and the client's when
the server's certificate has been verified. Until the client has been answered, interception can be
given up: the flow is passed through on another connection to the server (`layers/redial.py`).
What the server asks for applies to later connections as well (`tls/pinning.py`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import field
from functools import partial
from typing import Final, Literal, NoReturn

import trio

from mitml4.dataclass import dataclass, replace
from mitml4.errors import CertificateError
from mitml4.layers.bridge import Bridge
from mitml4.layers.certificate import CertificateTools, assess, make_leaf, unknown_to_all
from mitml4.layers.client_handshake import HANDSHAKE_S
from mitml4.layers.layer import HandshakeError
from mitml4.layers.redial import Redial
from mitml4.layers.report import Kind, Report
from mitml4.net.stream import Stream, StreamTruncated, Transport
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import MAX_PEEK, Framing, Speaker
from mitml4.protocols.tls.alerts import Alert, alert_name
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.hello import ClientHello
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.tasks import first_of
from mitml4.tls.bridge.older import has_bridged
from mitml4.tls.bridge.tickets import Tickets
from mitml4.tls.context import Contexts
from mitml4.tls.engine_memory import Engine, EngineMemory, EngineSite
from mitml4.tls.failure import TlsFailure
from mitml4.tls.forge import Leaf
from mitml4.tls.opened_stream import OpenedStream
from mitml4.tls.pinning import CHANNEL_BINDING, CLIENT_CERTIFICATE, Visit
from mitml4.tls.presented import Presented
from mitml4.tls.verify import Verification

__all__ = ["GivenUp", "Handshake", "HandshakeTools", "Intercepted"]

_ANSWERED_WITHIN_S: Final = 1.0
"""A second connection has this time to answer, or four times as long as the first one took."""
_SPOKEN_WITHIN_S: Final = 0.25
"""The same, from when the server has sent data on the first one."""
_TLS_1_2: Final = 0x0303
_WARNING, _FATAL = 1, 2  # RFC 8446 §6, AlertLevel


@dataclass(frozen=True, slots=True)
class Intercepted:
    """Both handshakes succeeded: the plaintext streams of both sides."""

    client_side: OpenedStream
    server_side: OpenedStream
    on_channel_binding: Callable[[bool], None]
    """See `LayerContext.on_channel_binding`."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Interception would break the connection, or hide something from the client. It can be passed
    through, on another connection to the server."""

    reason: str
    server_side: Stream
    """The other connection."""
    sent: int
    """The number of the client's bytes that were sent on it."""
    certificate: CertificateDetails | None
    """The server's certificate, from the first connection."""


@dataclass(slots=True, kw_only=True)
class HandshakeTools(CertificateTools):
    """What the handshakes of a session share."""

    contexts: Contexts
    engine: Engine = "auto"
    engine_memory: EngineMemory = field(default_factory=EngineMemory)
    tickets: Tickets = field(default_factory=partial(Tickets, time.monotonic))

    def note_choice(self, site: EngineSite, hello: ClientHello, chosen: TlsDetails) -> None:
        """Remember what a server has chosen, where the bridge has that too."""
        is_1_3 = chosen.version == "TLSv1.3"
        if is_1_3 or (chosen.version == "TLSv1.2" and has_bridged(hello, chosen.cipher)):
            self.engine_memory.finished(site, is_1_3=is_1_3)


@dataclass(frozen=True, slots=True)
class LaterWishes:
    """What a server asks for after its handshake counts for the next connection."""

    visit: Visit
    report: Report

    def note_request(self) -> None:
        """A server may ask for a certificate only when it knows the request: up to TLS 1.2 in a
        renegotiation, in TLS 1.3 if the client has offered post_handshake_auth."""
        self.visit.needs(CLIENT_CERTIFICATE)
        reason = "the server asks for a client certificate"
        self.report.error("server", "handshake", "certificate", reason)

    def note_channel_binding(self, offered: bool) -> None:
        """A server refuses a login that is bound to a TLS connection other than its own."""
        if offered:
            self.visit.needs(CHANNEL_BINDING)
        else:
            self.visit.needs_no(CHANNEL_BINDING)


class Handshake:
    """Both handshakes of one flow."""

    def __init__(
        self,
        tools: HandshakeTools,
        bridge: Bridge,
        context: LayerContext,
        hello: ClientHello,
        details: TlsDetails,
        visit: Visit,
        speaker: Speaker,
        redial: Redial | None,
    ) -> None:
        """`hello` is unread in `bridge`; `details`: of it. `redial`: how to connect again, where
        that is possible."""
        self.tools = tools
        self.bridge = bridge
        self.context = context
        self.hello = hello
        self.visit = visit
        self.speaker = speaker
        self.redial = redial
        self.began = trio.current_time()
        self.details = details
        self.has_said_end = False
        """Whether the server has ended its handshake with close_notify."""

    def framing(self) -> Framing | None:
        """What the messages are carried in, for one stream."""
        return self.bridge.framing() if self.bridge.framing else None

    # The server's handshake

    async def meet_server(
        self, handshake: Callable[[], Awaitable[GivenUp | None]], *, goes_on: bool = False
    ) -> GivenUp | None:
        """Do the server's handshake, as long as the client waits for it. `goes_on`: it may be
        cancelled, and goes on when it is called again.

        Raises HandshakeError, TlsFailure, OSError.
        """
        client = self.bridge.up.source
        # Inside another layer, only reading tells that the client has ended.
        when = partial(client.watched, for_end=True) if isinstance(client, Transport) else None
        deadline = trio.current_time() + HANDSHAKE_S
        try:
            if when and goes_on:  # mostly the client waits, which takes no nursery
                with trio.CancelScope(deadline=deadline) as scope, when(scope.cancel):
                    return await handshake()
                when = None
            timeout_s = deadline - trio.current_time()
            return await first_of(
                handshake, self._follow_client_end, when=when, timeout_s=timeout_s
            )
        except TlsFailure:
            raise
        except StreamTruncated:
            await self.pass_on_failure(None)
        except trio.TooSlowError:
            self.report("server", "timeout", "the server does not answer the ClientHello")
            self.bridge.client_side.abort()
            raise HandshakeError from None

    async def _follow_client_end(self) -> None:
        """Pass the client's end on, and wait for its reset; what else it sends stays unread.

        A client that has ended may still read the server's answer. Raises OSError for a reset.
        """
        lane = self.bridge.up
        seen = 0
        while seen <= MAX_PEEK and not lane.ended:
            seen = len(await lane.look(seen))
        if lane.ended:
            await lane.end()
        await lane.source.transport.wait_reset()

    async def pass_on_failure(self, failure: TlsFailure | None) -> NoReturn:
        """The server ended the handshake: the client gets the same alert, or the same end.

        None: it ended the connection. The client has no keys yet.
        """
        if failure is None:
            self.report("server", "reset", "the server closed the connection during the handshake")
            if self.has_said_end:
                await self._send_alert(_WARNING, Alert.CLOSE_NOTIFY)
        elif failure.alert is None:
            self.report("server", "protocol", failure.reason)
        else:
            self.report("server", "alert", alert_name(failure.alert))
            await self._send_alert(_FATAL, failure.alert)
        await self.end_client()

    async def _send_alert(self, level: int, alert: int) -> None:
        """Send the client the server's alert, in a plaintext record (RFC 8446 §5.1, §6)."""
        version = min(max(self.hello.versions), _TLS_1_2)
        record = b"\x15" + version.to_bytes(2, "big") + bytes([0, 2, level, alert])
        if framing := self.framing():
            record = framing.wrap(record)
        await self.bridge.client_side.send_all(memoryview(record))

    async def end_client(self) -> NoReturn:
        """The client gets an end, and no alert."""
        await self.bridge.client_side.send_eof()
        # Closing with unread bytes sends a reset, which may discard the alert at the client.
        self.bridge.client_side.discard(len(self.bridge.client_side.peek_nowait(MAX_PEEK + 1)))
        raise HandshakeError from None

    async def give_up(self, reason: str, first: Stream | None = None) -> GivenUp | None:
        """Give up interception for a new connection; None if the server does not accept one.

        A server may not: an FTP server, for example, accepts each data connection once. So a
        `first` connection that still works is kept until the server has answered the new one.
        """
        if self.redial is None:
            return None
        if first is None:
            sent, server_side = b"", await self.redial.connect()
        else:
            sent = self.bridge.up.glance()[: self.hello.wire_length]
            took_s = 4 * self.elapsed_s
            answer_s, spoken_s = max(_ANSWERED_WITHIN_S, took_s), max(_SPOKEN_WITHIN_S, took_s)
            server_side = await self.redial.connect_with(sent, first, answer_s, spoken_s)
        if server_side is None:
            return None
        return GivenUp(reason, server_side, len(sent), self.details.certificate)

    @property
    def answers_request(self) -> bool:
        """Whether we answer a server that asks for a certificate: with the configured one, or with
        none if the client is known to have none."""
        return bool(self.tools.contexts.client_identity) or self.visit.declines

    async def leave_request_to_client(self, first: Stream | None) -> GivenUp | None:
        """The server asks for a client certificate: pass the client through, on this connection or
        on its next one. `first` is as in `give_up`."""
        given_up = await self.give_up(CLIENT_CERTIFICATE, first)
        if not given_up:
            self.visit.needs(CLIENT_CERTIFICATE)
        return given_up

    async def wait_request_verdict(self, server_side: OpenedStream) -> GivenUp | None:
        """A server may refuse the client certificate that it has asked for, or that there is none.

        Up to TLS 1.2 it does so in the handshake. In TLS 1.3 the first record after the handshake
        tells: a ticket, or the alert certificate_required.
        """
        if self.details.version == "TLSv1.3":
            with trio.move_on_after(self.context.hold_s), suppress(StreamTruncated):
                await server_side.wait_receivable()  # the next read reports a truncation again
            server_side.peek_nowait(1)
        if server_side.failure:
            if given_up := await self.leave_request_to_client(None):
                return given_up
            if isinstance(server_side.failure, OSError):
                raise server_side.failure
            refusal = server_side.failure if isinstance(server_side.failure, TlsFailure) else None
            await self.pass_on_failure(refusal)
        if not self.answers_request:
            self.error("server", "certificate", "the server asks for a client certificate")
        return None

    # The leaf

    async def verify(self, presented: Presented, first: Stream) -> Verification | GivenUp:
        """What the leaf is to show of the server's certificate. `first` is as in `give_up`.

        If a leaf cannot show something, the flow is passed through, and the client sees it itself.
        If that is not possible, no client trusts the leaf, and the next connection is passed
        through. Raises HandshakeError.
        """
        assessed = assess(self.tools, presented, self.hello, self.context)
        self.details = replace(self.details, certificate=assessed.details)
        if assessed.is_rejected:
            self.report("server", "certificate", assessed.verification.reason)
            self.abort()
        if not assessed.hidden:
            return assessed.verification
        if given_up := await self.give_up(assessed.hidden, first):
            return given_up
        self.visit.needs(assessed.hidden)
        return unknown_to_all(assessed.verification)

    async def make_leaf(
        self, presented: Presented, verification: Verification, version: int
    ) -> Leaf:
        """The leaf for the client, with which the server has chosen a `version` (0x0304).

        The details are announced with what it mirrors. Raises HandshakeError.
        """
        try:
            leaf = await make_leaf(
                self.tools, presented.leaf, verification, self.hello, version=version
            )
            self.details = replace(
                self.details, mirrored=leaf.mirrored, not_mirrored=leaf.not_mirrored
            )
        except CertificateError as error:
            self.report("server", "certificate", error.message)
            self.abort()
        finally:
            self.announce()
        return leaf

    # The result

    def intercepted(self, client_side: OpenedStream, server_side: OpenedStream) -> Intercepted:
        """Both handshakes are done. What they needed is not kept."""
        self.tools.note_choice(self.engine_site, self.hello, self.details)
        later = LaterWishes(self.visit, self.bridge.report)
        if not self.tools.contexts.client_identity:
            server_side.on_certificate_request(later.note_request)
        return Intercepted(client_side, server_side, later.note_channel_binding)

    @property
    def engine_site(self) -> EngineSite:
        """What the choice of the engine depends on (`tls/engine_memory.py`)."""
        return EngineSite(self.visit.site, self.details.ja4)

    @property
    def elapsed_s(self) -> float:
        return trio.current_time() - self.began

    def abort(self) -> NoReturn:
        """Reset both sides."""
        self.bridge.client_side.abort()
        self.bridge.server_side.abort()
        raise HandshakeError

    def announce(self) -> None:
        """Report the layer with the details that are known by now; once."""
        self.bridge.report.enter(self.context.depth, "tls")
        self.bridge.report.layer(self.context.depth, self.speaker, "intercepted", self.details)

    def report(self, side: Literal["client", "server"], kind: Kind, reason: str) -> None:
        """Report the layer, and an error of this side's handshake."""
        self.announce()
        self.error(side, kind, reason)

    def error(self, side: Literal["client", "server"], kind: Kind, reason: str) -> None:
        self.bridge.report.error(side, "handshake", kind, reason)
