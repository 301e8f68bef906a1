"""The one layer that does more than relay: TLS, ended on both sides and made to look like one.

The ClientHello is read whole and left unread. Where opening would cost the connection (a client
certificate is demanded, the client does not take our certificates, this OpenSSL cannot speak it)
the flow is passed through, before the handshakes (`layers/handshake.py`) or after the server's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

import trio
from OpenSSL import SSL

from mitml4.errors import ProtocolError
from mitml4.layers.bridge import Bridge, first_of
from mitml4.layers.converse import converse
from mitml4.layers.guard import Action, Blocked, Decide
from mitml4.layers.handshake import Handshake, HandshakeTools, PassThrough
from mitml4.layers.redial import Redial
from mitml4.layers.report import Speaker
from mitml4.protocols.conversation import LayerContext, Target, Unreadable
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.fingerprints import kind_of_client
from mitml4.protocols.tls.hello import ClientHello, parse_client_hello
from mitml4.protocols.tls.protocol import TlsConversation, TlsDetails
from mitml4.tls.pinning import (
    CLIENT_CERTIFICATE,
    Client,
    PassthroughCache,
    Site,
    Visit,
)

__all__ = ["TlsInterceptor"]

_HELLO_S: Final = 10.0
"""What there is of a ClientHello that is not whole by then is relayed unopened."""
_OLDEST: Final = 0x0301
_NEWEST: Final = 0x0304


@dataclass(slots=True, kw_only=True)
class TlsInterceptor(HandshakeTools):
    """What opening TLS needs of the session."""

    passthrough_cache: PassthroughCache
    policy: Decide

    async def open(
        self, bridge: Bridge, speaker: Speaker, client: str, redial: Redial | None
    ) -> Bridge | None:
        """Open the TLS on a bridge; the bridge of its plaintext, or None when the flow is over.

        `client` is its address: what a client shows counts for its next connections.
        With `redial` a handshake that cannot be carried over is given up, and the untouched
        ClientHello is passed through. Raises Blocked, Failed, OSError.
        """
        await bridge.flush()
        hello = await _read_hello(bridge)
        if hello is None:
            if not _is_reversed(bridge):
                why = "TLS: a ClientHello that cannot be read"
                bridge.guard.check(Unreadable(why, bridge.target.port))
            return await _pass_through(bridge, speaker, "not openable")
        try:
            bridge.guard.check(*_named(hello, bridge))
        except Blocked:
            depth = bridge.report.push("tls")
            bridge.report.layer(depth, speaker, "relayed", TlsDetails.of(hello))
            raise
        if hello.sslv2 or bridge.up.ahead:
            return await _pass_through(bridge, speaker, "not openable")
        visit = self.passthrough_cache.visit(
            Client(client, kind_of_client(hello)), Site.of(str(bridge.target), hello.sni)
        )
        action, reason = self._decide(hello, bridge, visit)
        if action == "passthrough":
            return await _pass_through(bridge, speaker, reason, visit)
        if bridge.server_side.peek_nowait(1):  # what spoke first is no TLS server, or has refused
            return await _pass_through(bridge, speaker, "not openable")
        try:
            self.contexts.server_side(hello)
        except SSL.Error:
            return await _pass_through(bridge, speaker, "cipher")
        try:
            return await Handshake(self, bridge, hello, visit, speaker, redial).run()
        except PassThrough as retreat:
            assert redial
            bridge.server_side.close()
            redial.adopt(retreat.server_side)
            bridge = bridge.onto(retreat.server_side)
            bridge.up.note_sent(retreat.sent)
            return await _pass_through(bridge, speaker, retreat.reason, visit, retreat.certificate)

    def _decide(self, hello: ClientHello, bridge: Bridge, visit: Visit) -> tuple[Action, str]:
        action, reason = bridge.guard.decide(*_named(hello, bridge), bridge.target)
        if action == "intercept":
            if bridge.passthrough_reason:
                return "passthrough", bridge.passthrough_reason
            if min(hello.versions) > _NEWEST or max(hello.versions) < _OLDEST:
                return "passthrough", "version"
            if learned := visit.passthrough_reason:
                return "passthrough", learned
        return action, reason


def _named(hello: ClientHello, bridge: Bridge) -> list[Target]:
    """What a ClientHello asks for: its SNI, at the port that the connection is bound for."""
    return [Target(name, bridge.target.port) for name in hello.server_names]


def _is_reversed(bridge: Bridge) -> bool:
    """Whether it is the server that has sent a ClientHello (FTP in active mode): that one does not
    ask for a server."""
    try:
        return parse_client_hello(bridge.down.glance()) is not None
    except ProtocolError:
        return False


async def _read_hello(bridge: Bridge) -> ClientHello | None:
    """The whole ClientHello, none of it consumed; None when it is none, or does not come.

    Nor does it come for us when the server has something to say before it has heard it.
    """
    data = bridge.up.glance()
    deadline = trio.current_time() + _HELLO_S
    while True:
        bare = bytes(bridge.framing().unwrap(data)) if bridge.framing else data
        try:
            if hello := parse_client_hello(bare):
                return hello
        except ProtocolError:
            return None
        looked = b""

        async def look(beyond: int = len(data)) -> None:
            nonlocal looked
            looked = await bridge.up.look(beyond)

        with trio.move_on_at(deadline):
            await first_of(look, partial(bridge.down.look, len(bridge.down.ahead)))
        if len(looked) <= len(data):
            return None
        data = looked


async def _pass_through(
    bridge: Bridge,
    speaker: Speaker,
    reason: str,
    visit: Visit | None = None,
    certificate: CertificateDetails | None = None,
) -> Bridge | None:
    """Relay the TLS unopened, and name what its hellos say."""
    context = LayerContext(target=bridge.target, within=tuple(bridge.report.stack))
    conversation = TlsConversation(context=context, passthrough=reason, certificate=certificate)
    if visit and reason == CLIENT_CERTIFICATE:
        conversation.on_client_certificate = visit.answered_request
    return await converse(bridge, conversation, speaker, "passthrough")
