"""Both TLS handshakes of one flow: first with the server, with the client's offer; then with the
client.

The server's answer decides what the client gets: version, cipher, ALPN, and a leaf with the same
names and defects (`layers/certificate.py`). The details name what cannot be mirrored. What the
server asks for applies to later connections as well (`tls/pinning.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Literal, NoReturn

import trio
from OpenSSL import SSL

from mitml4.dataclass import dataclass
from mitml4.errors import CertificateError
from mitml4.layers.bridge import Bridge
from mitml4.layers.certificate import CertificateTools, assess, make_leaf, unknown_to_all
from mitml4.layers.client_handshake import HANDSHAKE_S, ClientHandshake
from mitml4.layers.layer import HandshakeError
from mitml4.layers.redial import Redial
from mitml4.layers.report import Kind
from mitml4.net.stream import StreamTruncated, Transport
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import MAX_PEEK, Framing, Speaker
from mitml4.protocols.tls.alerts import alert_name
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.differences import differences, lacks
from mitml4.protocols.tls.hello import ClientHello
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.tasks import first_of
from mitml4.tls.context import Contexts, Outcome, has_extended_master_secret
from mitml4.tls.failure import TlsFailure
from mitml4.tls.forge import Leaf
from mitml4.tls.offer import prepare
from mitml4.tls.pinning import (
    CHANNEL_BINDING,
    CLIENT_CERTIFICATE,
    Visit,
)
from mitml4.tls.presented import Presented
from mitml4.tls.stream import TlsStream, tls_over
from mitml4.tls.verify import Verdict

__all__ = ["GivenUp", "Handshake", "HandshakeTools", "Intercepted"]

_ANSWERED_WITHIN_S: Final = 1.0
"""A second connection has this time to answer, or four times as long as the first one took."""
_VERSIONS: Final = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_TLS_1_2: Final = 0x0303
_ALERTS_FOR_AN_OFFER: Final = (40, 47, 70, 71)
"""RFC 8446 §6.2: handshake_failure, illegal_parameter, protocol_version, insufficient_security:
a server may send these because our offer lacks something that the client's has."""


@dataclass(frozen=True, slots=True)
class Intercepted:
    """Both handshakes succeeded: the plaintext streams of both sides."""

    client_side: TlsStream
    server_side: TlsStream
    on_channel_binding: Callable[[bool], None]
    """See `LayerContext.on_channel_binding`."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Interception would break the connection, or hide something from the client. It can be passed
    through, on another connection to the server."""

    reason: str
    server_side: Transport
    """The other connection."""
    sent: int
    """The number of the client's bytes that were sent on it."""
    certificate: CertificateDetails | None
    """The server's certificate, from the first connection."""


@dataclass(slots=True, kw_only=True)
class HandshakeTools(CertificateTools):
    """What the handshakes of a session share."""

    contexts: Contexts


class Handshake:
    """Both handshakes of one flow."""

    def __init__(
        self,
        tools: HandshakeTools,
        bridge: Bridge,
        context: LayerContext,
        hello: ClientHello,
        visit: Visit,
        speaker: Speaker,
        redial: Redial | None,
    ) -> None:
        self.tools = tools
        self.bridge = bridge
        self.context = context
        self.hello = hello
        self.visit = visit
        self.speaker = speaker
        self.redial = redial
        self.began = trio.current_time()
        self.details = TlsDetails.of(hello)

    async def run(self) -> Intercepted | GivenUp:
        """Raises HandshakeError, OSError."""
        server_side = await self._connect()
        if isinstance(server_side, GivenUp):
            return server_side
        presented = server_side.presented()
        verdict = await self._verify(server_side, presented)
        if isinstance(verdict, GivenUp):
            return verdict
        if given_up := await self._wait_certificate_verdict(server_side):
            return given_up
        try:
            leaf = await self._make_leaf(server_side, presented, verdict)
        finally:
            self._announce()
        client_side = await self._accept(server_side, leaf)
        if not self.tools.contexts.client_certificate:
            server_side.alerts.on_certificate_request = self._note_late_request
        return Intercepted(client_side, server_side, self._note_channel_binding)

    def _framing(self) -> Framing | None:
        return self.bridge.framing() if self.bridge.framing else None

    async def _connect(self) -> TlsStream | GivenUp:
        """The handshake with the server, with the client's offer."""
        mirrored = self.tools.contexts.server_side(self.hello)
        unlike = differences(self.hello, mirrored.hello)
        self.details = replace(self.details, not_mirrored=unlike)
        stream = tls_over(self.bridge.server_side, mirrored.context, framing=self._framing())
        stream.alerts.usual = mirrored.usual
        prepare(stream.connection, self.hello)
        given_up: GivenUp | None
        try:
            with trio.fail_after(HANDSHAKE_S):
                given_up = await first_of(
                    partial(self._shake_hands, stream), self._wait_client_ended
                )
        except TlsFailure as failure:
            lacking = failure.alert in _ALERTS_FOR_AN_OFFER and lacks(self.hello, mirrored.hello)
            asked = stream.alerts.asked_for_certificate
            if not asked and (failure.alert is None or lacking):
                if given_up := await self._give_up(failure.reason):
                    return given_up
                self.visit.needs(failure.reason)
            await self._pass_on_failure(failure)
        except StreamTruncated:
            await self._pass_on_failure(None)
        except trio.TooSlowError:
            self._report("server", "timeout", "the server does not answer the ClientHello")
            self.bridge.client_side.abort()
            raise HandshakeError from None
        if given_up:
            return given_up
        if self.bridge.up.ended and self.redial:
            if given_up := await self._give_up("client ended"):
                return given_up
            self._report("client", "reset", "the client ended before the server's answer")
            self._abort(stream)
        self._describe(stream.connection)
        return stream

    async def _shake_hands(self, stream: TlsStream) -> GivenUp | None:
        """Do the handshake with the server.

        The client has not been answered yet. So if the server asks for a client certificate, the
        flow can be passed through at once. The server may also ask, and then end the handshake.
        """
        try:
            await stream.handshake()
        except (StreamTruncated, OSError):
            if given_up := await self._leave_request_to_client(stream, is_lost=True):
                return given_up
            raise
        if self._answers_request():
            return None
        return await self._leave_request_to_client(stream, is_lost=False)

    def _answers_request(self) -> bool:
        """Whether we answer a server that asks for a certificate: with the configured one, or with
        none if the client is known to have none."""
        return bool(self.tools.contexts.client_certificate) or self.visit.declines

    async def _leave_request_to_client(
        self, server_side: TlsStream, *, is_lost: bool
    ) -> GivenUp | None:
        """If the server has asked for a client certificate: pass the client through, on this
        connection or on its next one."""
        if not server_side.alerts.asked_for_certificate:
            return None
        given_up = await self._give_up(CLIENT_CERTIFICATE, None if is_lost else server_side)
        if not given_up:
            self.visit.needs(CLIENT_CERTIFICATE)
        return given_up

    async def _wait_client_ended(self) -> None:
        """Wait until the client has ended or was reset; what else it sends stays unread.

        A client that has ended before it was answered will not do a handshake. Raises OSError for a
        reset.
        """
        lane = self.bridge.up
        seen = 0
        while seen <= MAX_PEEK and not lane.ended:
            seen = len(await lane.look(seen))
        lane.source.transport.raise_reset()
        if not lane.ended or not self.redial:
            await lane.source.transport.wait_reset()

    async def _pass_on_failure(self, failure: TlsFailure | None) -> NoReturn:
        """The server ended the handshake: the client gets the same alert, or the same end."""
        if failure is None:
            self._report("server", "reset", "the server closed the connection during the handshake")
        elif failure.alert is None:
            self._report("server", "protocol", failure.reason)
        else:
            self._report("server", "alert", alert_name(failure.alert))
            version = min(max(self.hello.versions), _TLS_1_2)
            # RFC 8446 §5.1, §6: a plaintext record with a fatal alert, the server's own.
            record = b"\x15" + version.to_bytes(2, "big") + b"\0\2\2" + bytes([failure.alert])
            if framing := self._framing():
                record = framing.wrap(record)
            await self.bridge.client_side.send_all(memoryview(record))
        await self.bridge.client_side.send_eof()
        # Closing with unread bytes sends a reset, which may discard the alert at the client.
        self.bridge.client_side.discard(len(self.bridge.client_side.peek_nowait(MAX_PEEK + 1)))
        raise HandshakeError from None

    async def _give_up(self, reason: str, first: TlsStream | None = None) -> GivenUp | None:
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
            answer_s = max(_ANSWERED_WITHIN_S, 4 * (trio.current_time() - self.began))
            server_side = await self.redial.connect_with(sent, first, answer_s)
        if server_side is None:
            return None
        return GivenUp(reason, server_side, len(sent), self.details.certificate)

    async def _wait_certificate_verdict(self, server_side: TlsStream) -> GivenUp | None:
        """A server may refuse the client certificate that it has asked for, or that there is none.

        Up to TLS 1.2 it does so in the handshake. In TLS 1.3 the first record after the handshake
        tells: a ticket, or the alert certificate_required.
        """
        if not server_side.alerts.asked_for_certificate:
            return None
        if server_side.connection.get_protocol_version() == SSL.TLS1_3_VERSION:
            with trio.move_on_after(self.context.hold_s), suppress(StreamTruncated):
                await server_side.wait_receivable()  # the next read reports a truncation again
            server_side.peek_nowait(1)
        if server_side.failure:
            if given_up := await self._leave_request_to_client(server_side, is_lost=True):
                return given_up
            refusal = server_side.failure if isinstance(server_side.failure, TlsFailure) else None
            await self._pass_on_failure(refusal)
        if not self._answers_request():
            self._error("server", "certificate", "the server asks for a client certificate")
        return None

    def _note_late_request(self) -> None:
        """A server may ask for a certificate only when it knows the request: up to TLS 1.2 in a
        renegotiation, in TLS 1.3 if the client has offered post_handshake_auth."""
        self.visit.needs(CLIENT_CERTIFICATE)
        self._error("server", "certificate", "the server asks for a client certificate")

    def _note_channel_binding(self, offered: bool) -> None:
        """A server refuses a login that is bound to a TLS connection other than its own."""
        if offered:
            self.visit.needs(CHANNEL_BINDING)
        else:
            self.visit.needs_no(CHANNEL_BINDING)

    def _describe(self, connection: SSL.Connection) -> None:
        group = connection.get_group_name()
        self.details = replace(
            self.details,
            alpn=connection.get_alpn_proto_negotiated() or None,
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name(),
            group=group,
            resumed=False,
            handshake_s=trio.current_time() - self.began,
        )

    async def _verify(self, server_side: TlsStream, presented: Presented) -> Verdict | GivenUp:
        """What the leaf is to show of the server's certificate.

        If a leaf cannot show something, the flow is passed through, and the client sees it itself.
        If that is not possible, no client trusts the leaf, and the next connection is passed
        through.
        """
        assessed = assess(self.tools, presented, self.hello, self.context)
        self.details = replace(self.details, certificate=assessed.details)
        if assessed.is_rejected:
            self._report("server", "certificate", assessed.verdict.reason)
            self._abort(server_side)
        if not assessed.hidden:
            return assessed.verdict
        if given_up := await self._give_up(assessed.hidden, server_side):
            return given_up
        self.visit.needs(assessed.hidden)
        return unknown_to_all(assessed.verdict)

    async def _make_leaf(
        self, server_side: TlsStream, presented: Presented, verdict: Verdict
    ) -> Leaf:
        try:
            leaf = await make_leaf(
                self.tools, presented.leaf, verdict, self.hello, version=self._version
            )
        except CertificateError as error:
            self._report("server", "certificate", error.message)
            self._abort(server_side)
        self.details = replace(
            self.details,
            mirrored=leaf.mirrored,
            not_mirrored=(*self.details.not_mirrored, *leaf.not_mirrored),
        )
        return leaf

    @property
    def _version(self) -> int:
        """The version that the server chose."""
        return _VERSIONS[self.details.version or "TLSv1.3"]

    def _abort(self, server_side: TlsStream) -> NoReturn:
        self.bridge.client_side.abort()
        server_side.abort()
        raise HandshakeError

    async def _accept(self, server_side: TlsStream, leaf: Leaf) -> TlsStream:
        outcome = Outcome(
            version=self._version,
            cipher=self.details.cipher or "",
            alpn=self.details.alpn or b"",
            extended_master_secret=has_extended_master_secret(server_side.connection),
        )
        handshake = ClientHandshake(
            server_side=server_side, visit=self.visit, error=partial(self._error, "client")
        )
        return await handshake.run(
            self.bridge.client_side,
            self.tools.contexts.client_side(leaf, outcome),
            framing=self._framing(),
            staple=leaf.staple,
        )

    def _announce(self) -> None:
        self.bridge.report.enter(self.context.depth, "tls")
        self.bridge.report.layer(self.context.depth, self.speaker, "intercepted", self.details)

    def _report(self, side: Literal["client", "server"], kind: Kind, reason: str) -> None:
        self._announce()
        self._error(side, kind, reason)

    def _error(self, side: Literal["client", "server"], kind: Kind, reason: str) -> None:
        self.bridge.report.error(side, "handshake", kind, reason)
