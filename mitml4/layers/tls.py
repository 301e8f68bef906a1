"""The layer that intercepts TLS: it ends it on both sides, and each side looks like the other.

The whole ClientHello is peeked at, and stays unread. Where interception would break the connection,
the flow is passed through: before the handshakes (`layers/handshake.py`), or after the server's. So
it is if the server demands a client certificate, the client rejects our certificates, or OpenSSL
lacks what they speak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final, assert_never

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.layers.bridge import Bridge
from mitml4.layers.bridged_handshake import BridgedHandshake, NotBridged
from mitml4.layers.converse import Follower
from mitml4.layers.handshake import GivenUp, HandshakeTools, Intercepted
from mitml4.layers.layer import Inner
from mitml4.layers.openssl_handshake import OpenSslHandshake
from mitml4.layers.probing import ClientProbing
from mitml4.layers.redial import Redial
from mitml4.net.stream import Stream
from mitml4.process import RunningProcess
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Speaker
from mitml4.protocols.policy import Blocked, Closed, Target, Unreadable
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.fingerprints import kind_of_client
from mitml4.protocols.tls.hello import ClientHello, parse_client_hello
from mitml4.protocols.tls.protocol import TlsConversation, TlsDetails
from mitml4.tasks import first_of
from mitml4.tls.bridge.errors import OTHER_CERTIFICATE
from mitml4.tls.bridge.older import finishes_all, is_bridged
from mitml4.tls.engine_memory import EngineSite
from mitml4.tls.pinning import (
    CLIENT_CERTIFICATE,
    Client,
    PassthroughCache,
    Site,
    Visit,
)
from mitml4.tls.probe import Probes

__all__ = ["InterceptTls", "TlsInterceptor", "passthrough_reason", "read_hello"]

_HELLO_S: Final = 10.0
"""A ClientHello that is incomplete by then is passed through."""
_FTP: Final = ("ftp",)
_FTPS: Final = 990
"""The port of FTP inside TLS from the first byte, whose protocol is not seen before."""
_NOT_KNOWN: Final = "not known to be bridged, inside another layer"
_OLDEST: Final = 0x0301
_NEWEST: Final = 0x0304


@dataclass(slots=True, kw_only=True)
class TlsInterceptor(HandshakeTools):
    """What interception of TLS needs from the session."""

    passthrough_cache: PassthroughCache
    probes: Probes | None = None
    """What clients are shown first (`--probe-clients`); None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptTls:
    """The layer that ends TLS on both sides; the plaintext is inside it."""

    tools: TlsInterceptor
    client: str
    """The client's address: what a client does affects its next connections."""
    process: RunningProcess | None
    """The client's, if that is known."""
    redial: Redial
    """If the plain connection is below, interception can be given up after the server's handshake:
    the ClientHello is passed through on another connection."""
    on_hello: Callable[[int, ClientHello], None] | None = None
    """Is told of the ClientHello at a depth, before anything of it moves."""

    async def run(
        self, bridge: Bridge, context: LayerContext, speaker: Speaker, seen: bytes = b""
    ) -> Inner | None:
        """`seen`: what has come from the client, as far as it was looked at."""
        await bridge.flush()
        read = await read_hello(bridge, seen)
        if read is None:
            if not _is_reversed(bridge):
                why = "TLS: a ClientHello that cannot be read"
                context.policy.check(Unreadable(why, context.port))
            return await self._pass_through(bridge, context, speaker, "not openable", None)
        hello, raw = read
        if self.on_hello:
            self.on_hello(context.depth, hello)
        try:
            context.policy.check(*_named(hello, context))
            if not context.policy.means(*hello.server_names):
                context.policy.check(Closed("TLS: an SNI for which DNS gave another address"))
        except Blocked:
            bridge.report.enter(context.depth, "tls")
            bridge.report.layer(context.depth, speaker, "relayed", TlsDetails.of(hello))
            raise
        if hello.sslv2 or bridge.up.ahead:
            return await self._pass_through(bridge, context, speaker, "not openable", hello)
        visit = self.tools.passthrough_cache.visit(
            self.client_of(hello), Site.of(str(context.target), hello.sni)
        )
        if (reason := passthrough_reason(hello, context, visit)) is not None:
            return await self._pass_through(bridge, context, speaker, reason, hello, visit)
        if bridge.down.glance():  # not a TLS server, or it has refused already
            return await self._pass_through(bridge, context, speaker, "not openable", hello)
        if await self._probe(bridge, context, hello, speaker):
            return None
        return await self._intercept(bridge, context, hello, raw, visit, speaker)

    def is_probed(self, hello: ClientHello, context: LayerContext) -> bool:
        """Whether this client meets a probe next."""
        probes = self.tools.probes
        return probes is not None and probes.is_due(
            self.client_of(hello), _expected(hello, context)
        )

    def client_of(self, hello: ClientHello) -> Client:
        """Whose next connections are affected."""
        program = self.tools.passthrough_cache.program_of(self.process)
        return Client(self.client, kind_of_client(hello), program)

    async def _probe(
        self, bridge: Bridge, context: LayerContext, hello: ClientHello, speaker: Speaker
    ) -> bool:
        """Show the client the next defect, if there is one. Returns whether that was the flow."""
        probes = self.tools.probes
        if probes is None:
            return False
        name = _expected(hello, context)
        probing = ClientProbing(probes, self.tools.contexts, bridge, context, hello, name)
        for case in probes.cases(self.client_of(hello), name):
            if case.is_offered(hello):
                await probing.run(case, speaker)
                return True
            probing.tell(case, "not_offered")
        return False

    async def _intercept(
        self,
        bridge: Bridge,
        context: LayerContext,
        hello: ClientHello,
        raw: bytes,
        visit: Visit,
        speaker: Speaker,
    ) -> Inner | None:
        """Do both handshakes, by the bridge if it can, else by OpenSSL."""
        redial = self.redial if context.depth == self.redial.depth else None
        again = self.redial.behind(bridge.prelude) if bridge.prelude else redial
        details = TlsDetails.of(hello)
        site = EngineSite(visit.site, details.ja4)
        parts = context, hello, details, visit, speaker, redial
        if not redial and not hello.takes_only_x509:  # what the server shows is known too late
            reason = OTHER_CERTIFICATE
            return await self._pass_through(bridge, context, speaker, reason, hello, visit)
        may_bridge = again is not None or self._may_bridge_inside(hello, site)
        reason = self._not_bridged(bridge, hello, site, may_bridge)
        outcome: Intercepted | GivenUp | NotBridged = NotBridged(reason)
        if not reason:
            outcome = await BridgedHandshake(self.tools, bridge, *parts).run(raw, again)
        if isinstance(outcome, NotBridged):
            if outcome.server_side:
                bridge = self._onto(bridge, outcome.server_side)
            if outcome.stays_closed or self.tools.engine == "bridge":
                reason = outcome.reason
                return await self._pass_through(bridge, context, speaker, reason, hello, visit)
            if reason := self._not_by_openssl(hello):
                return await self._pass_through(bridge, context, speaker, reason, hello)
            openssl = OpenSslHandshake(self.tools, bridge, *parts)
            outcome = await openssl.run(outcome.reason)
        match outcome:
            case Intercepted():
                if _has_data_connections(context):
                    visit.leave_sessions(closed=False)
                inside = bridge.inside_tls(outcome.client_side, outcome.server_side, context.port)
                names = hello.server_names
                return Inner(inside, context.inside_tls(outcome.on_channel_binding, names=names))
            case GivenUp():
                bridge = self._onto(bridge, outcome.server_side)
                bridge.up.note_sent(outcome.sent)
                reason, certificate = outcome.reason, outcome.certificate
                return await self._pass_through(
                    bridge, context, speaker, reason, hello, visit, certificate
                )
            case _:
                assert_never(outcome)

    def _not_by_openssl(self, hello: ClientHello) -> str:
        """Why OpenSSL cannot do the handshakes; empty: it can. A type of certificate that it does
        not offer might be what the server shows, and the client trusts."""
        if not hello.takes_only_x509:
            return OTHER_CERTIFICATE
        return "" if self.tools.contexts.can_offer(hello) else "cipher"

    def _may_bridge_inside(self, hello: ClientHello, site: EngineSite) -> bool:
        """Whether the bridge surely finishes, where nobody can dial again."""
        offers_1_3 = _NEWEST in hello.supported_versions
        memory = self.tools.engine_memory
        return finishes_all(hello) or memory.may_bridge_inside(site, offers_1_3=offers_1_3)

    def _not_bridged(
        self, bridge: Bridge, hello: ClientHello, site: EngineSite, may_bridge: bool
    ) -> str:
        """Why OpenSSL does the handshakes from the first byte; empty: it does not."""
        memory = self.tools.engine_memory
        if self.tools.engine == "openssl":
            return "as asked"
        if bridge.framing:
            return "a handshake in packets"
        if not any(map(is_bridged, hello.cipher_suites)):
            return "cipher"
        if reason := memory.must_use_openssl(site):
            return reason
        if not may_bridge:
            return _NOT_KNOWN
        return ""

    def _learn_choice(self, hello: ClientHello, visit: Visit, details: TlsDetails) -> None:
        """What the server has answered on a connection that is passed through lets the bridge be
        used on the next one."""
        self.tools.note_choice(EngineSite(visit.site, details.ja4), hello, details)

    def _onto(self, bridge: Bridge, server_side: Stream) -> Bridge:
        """The bridge to another connection to the server, in place of the first one."""
        bridge.server_side.close()
        self.redial.adopt(server_side)
        return bridge.onto(server_side)

    async def _pass_through(
        self,
        bridge: Bridge,
        context: LayerContext,
        speaker: Speaker,
        reason: str,
        hello: ClientHello | None,
        visit: Visit | None = None,
        certificate: CertificateDetails | None = None,
    ) -> Inner | None:
        """Relay TLS as it is, and report what its hellos contain. Raises Blocked if it may not stay
        closed."""
        try:
            _check_closed(context, hello, reason)
        except Blocked:
            bridge.report.enter(context.depth, "tls")
            details = TlsDetails.of(hello) if hello else None
            bridge.report.layer(context.depth, speaker, "relayed", details)
            raise
        conversation = TlsConversation(context=context, passthrough=reason, certificate=certificate)
        if visit and _has_data_connections(context):
            visit.leave_sessions(closed=True)
        if visit and hello and reason == _NOT_KNOWN:
            conversation.on_choice = partial(self._learn_choice, hello, visit)
        if visit and reason == CLIENT_CERTIFICATE:
            conversation.on_client_certificate = visit.answered_request
        await Follower(bridge, context, "passthrough").follow(conversation, speaker)
        return None


def _expected(hello: ClientHello, context: LayerContext) -> str:
    """The name or address that a client expects in the certificate."""
    return hello.sni or (context.target.host if context.target else "")


def _has_data_connections(context: LayerContext) -> bool:
    """Whether servers may want other connections to resume this one's session."""
    return context.stack[-1:] == _FTP or (not context.stack and context.port == _FTPS)


def passthrough_reason(hello: ClientHello, context: LayerContext, visit: Visit) -> str | None:
    """Why this TLS is passed through; None: it is intercepted."""
    named = _named(hello, context)
    action, reason = context.policy.decide(*named, *([context.target] if context.target else []))
    if action == "passthrough":
        return reason
    if context.passthrough_reason:
        return context.passthrough_reason
    if min(hello.versions) > _NEWEST or max(hello.versions) < _OLDEST:
        return "version"
    return visit.passthrough_reason


def _check_closed(context: LayerContext, hello: ClientHello | None, reason: str) -> None:
    """Raises Blocked. With ECH, the SNI may not be the name that is asked for."""
    is_asked_for = reason.startswith("--") and hello is not None and not hello.ech
    names = hello.server_names if hello else ()
    why = f"TLS that is not opened ({reason})"
    context.policy.check_closed(names, why, is_asked_for=is_asked_for)


def _named(hello: ClientHello, context: LayerContext) -> list[Target]:
    """What a ClientHello asks for: its SNI, at the port that the connection is bound for."""
    return [Target(name, context.port or 0) for name in hello.server_names]


def _is_reversed(bridge: Bridge) -> bool:
    """Whether the server has sent a ClientHello (FTP in active mode): it does not name a server to
    connect to."""
    try:
        return parse_client_hello(bridge.down.glance()) is not None
    except ProtocolError:
        return False


async def read_hello(bridge: Bridge, seen: bytes = b"") -> tuple[ClientHello, bytes] | None:
    """The whole ClientHello and its bytes, none of them consumed. `seen`: the first of them that
    are known.

    None if it is not one, is not complete in time, or if the server sends something before that.
    """
    data = seen or bridge.up.glance()
    deadline = math.inf
    while True:
        bare = bytes(bridge.framing().unwrap(data)) if bridge.framing else data
        try:
            if hello := parse_client_hello(bare):
                return hello, bare[: hello.wire_length]
        except ProtocolError:
            return None
        looked: bytes | None = None
        deadline = min(deadline, trio.current_time() + _HELLO_S)
        with trio.move_on_at(deadline):
            looked = await first_of(
                partial(bridge.up.look, len(data)),
                partial(bridge.down.look, len(bridge.down.ahead)),
            )
        if looked is None or len(looked) <= len(data):
            return None
        data = looked
