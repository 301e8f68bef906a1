"""A flow whose server is connected to only when it is needed.

Rules may answer requests instead of the server, also where there is none. If such a rule could
match, the client is accepted first. Its first bytes show whether one still can: a request line, or
the name in a ClientHello. If so, TLS is ended for the client alone, with a leaf for that name and
HTTP/1. Otherwise the server is connected to, and the flow goes its usual way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.layers.bridge import Bridge
from mitml4.layers.certificate import make_leaf
from mitml4.layers.client_handshake import ClientHandshake, described
from mitml4.layers.editing.elsewhere import RefusedCertificateError, connect_tls
from mitml4.layers.editing.flow import FlowEditing, Origin
from mitml4.layers.editing.layer import Edit, Kind, first_bytes
from mitml4.layers.layer import Inner, Layer
from mitml4.layers.report import Kind as ErrorKind
from mitml4.layers.report import Report
from mitml4.layers.tls import InterceptTls, passthrough_reason, read_hello
from mitml4.net.stream import Stream
from mitml4.protocols.context import LayerContext
from mitml4.protocols.policy import Target
from mitml4.protocols.tls.hello import ClientHello
from mitml4.protocols.tls.protocol import TlsDetails
from mitml4.tls.context import Outcome
from mitml4.tls.pinning import Site, Visit
from mitml4.tls.stream import TlsStream, tls_over
from mitml4.tls.verify import Verification

__all__ = ["Deferred"]

_VERSIONS: Final = {0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_CIPHERS: Final = {0x0303: "ECDHE-ECDSA-AES128-GCM-SHA256", 0x0304: "TLS_AES_128_GCM_SHA256"}
_HTTP_1: Final = b"http/1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """The beginning of such a flow."""

    editing: FlowEditing
    tls: InterceptTls
    next_layer: Callable[[LayerContext], Layer]
    observe: Layer
    dial: Callable[[str | None], Awaitable[Stream]]
    """Connect to the flow's server, whose name is this one, if it is known. Raises OSError."""
    hold_s: float
    """How long a client may be silent before the server is connected to, which may speak first."""

    async def run(self, bridge: Bridge, context: LayerContext) -> bool:
        """Carry the flow to its end; False, with nothing consumed: it needs its server.

        Raises what layers raise.
        """
        kind: Kind | None = None
        with trio.move_on_after(self.hold_s) as silence:
            await bridge.up.look(0)
        if not silence.cancelled_caught:
            kind = await first_bytes(bridge, self.hold_s)
        if kind is Kind.HTTP1 and self.editing.may_answer(context):
            edit = Edit(
                self.editing, self.observe, self.next_layer, Origin(None, partial(self.dial, None))
            )
            await edit.run(bridge, context)
            return True
        if kind is Kind.TLS:
            return await self._end_tls(bridge, context)
        return False

    async def _end_tls(self, bridge: Bridge, context: LayerContext) -> bool:
        read = await read_hello(bridge)
        if read is None or read[0].sslv2:
            return False
        hello, _ = read
        self.editing.learn(context.depth, hello)
        tools = self.tls.tools
        visit = tools.passthrough_cache.visit(
            self.tls.client_of(hello), Site.of(str(context.target), hello.sni)
        )
        version = max((each for each in hello.versions if each in _VERSIONS), default=0)
        speaks_http = hello.alpn is None or _HTTP_1 in hello.alpn
        ends = [Target(name, context.port or 0) for name in hello.server_names]
        if (
            not (version and speaks_http and self.editing.may_answer(context, "tls"))
            or any(map(context.policy.blocks, ends))
            or passthrough_reason(hello, context, visit) is not None
            or self.tls.is_probed(hello, context)
        ):
            return False
        alpn = _HTTP_1 if hello.alpn else b""
        client_side = await self._shake_hands(bridge, context, hello, visit, version, alpn)
        inside = bridge.inside_tls(client_side, bridge.server_side, context.port)
        context = context.inside_tls()
        origin = Origin(None, partial(self._connect, bridge.report, hello, context, alpn))
        edit = Edit(self.editing, self.observe, self.next_layer, origin)
        inner: Inner | None = await edit.run(inside, context)
        while inner:
            inner = await self.next_layer(inner.context).run(inner.bridge, inner.context)
        return True

    async def _shake_hands(
        self,
        bridge: Bridge,
        context: LayerContext,
        hello: ClientHello,
        visit: Visit,
        version: int,
        alpn: bytes,
    ) -> TlsStream:
        """The handshake with the client. Raises HandshakeError, CertificateError."""
        report, tools = bridge.report, self.tls.tools
        leaf = await make_leaf(
            tools, None, Verification(issuer=tools.verifier.everybody), hello, version=version,
            host=hello.sni or self.editing.flow.destination.ip,
        )  # fmt: skip
        outcome = Outcome(
            version=version, cipher=_CIPHERS[version], alpn=alpn, extended_master_secret=True
        )
        stream = tls_over(
            bridge.client_side, tools.contexts.client_side(leaf, outcome), server_side=True
        )
        details = TlsDetails.of(hello)
        report.enter(context.depth, "tls")

        async def shake_hands() -> bool:
            await stream.handshake()
            return True

        async def end_server(_alert: int | None, _is_reset: bool) -> None:
            bridge.server_side.abort()

        handshake = ClientHandshake(
            client_side=bridge.client_side,
            server_side=bridge.server_side,
            end_server=end_server,
            visit=visit,
            error=partial(report.error, "client", "handshake"),
        )
        try:
            await handshake.run(shake_hands)
        finally:
            shown = described(details, stream, alpn)
            report.layer(context.depth, "client", "intercepted", shown)
        handshake.watch_opening(stream)
        return stream

    async def _connect(
        self, report: Report, hello: ClientHello, context: LayerContext, alpn: bytes
    ) -> Stream:
        """The flow's own server, by TLS. Raises OSError."""
        below = await self.dial(hello.sni)
        host = hello.sni or (context.target.host if context.target else "")
        try:
            return await connect_tls(self.tls.tools, below, host, (alpn,) if alpn else ())
        except OSError as error:
            kind: ErrorKind = (
                "certificate" if isinstance(error, RefusedCertificateError) else "protocol"
            )
            report.error("server", "handshake", kind, error.strerror or str(error))
            raise
