"""Which layer comes next on a bridge.

a client asks us   Observe or Edit, as its proxy; in the tunnel Onward, and then as follows
nobody may look    RelayUnseen
a rule may match   Edit, which goes on with the others; also if not all hosts are allowed
otherwise          Observe, which goes on with InterceptTls where it finds TLS
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

from mitml4.dataclass import dataclass
from mitml4.engine.actions import HandOver, Switch
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.editing.flow import FlowEditing
from mitml4.layers.editing.layer import Edit
from mitml4.layers.layer import Inner, Layer
from mitml4.layers.proxy.onward import TUNNELS, Onward, Opened
from mitml4.layers.redial import Redial
from mitml4.layers.tls import InterceptTls, TlsInterceptor
from mitml4.layers.unseen import RelayUnseen
from mitml4.process import RunningProcess
from mitml4.protocols.context import LayerContext

__all__ = ["LayerChoice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """The layers of one flow."""

    tls: TlsInterceptor
    client: str
    """The client's address."""
    process: RunningProcess | None
    """The client's, if that is known."""
    redial: Redial
    unseen: str | None = None
    """Why the flow is relayed without a look, if it is."""
    editing: FlowEditing | None = None
    """The editor of the flow; None: nothing can match it."""

    tunnel: Callable[[], Opened] | None = None
    """Gives the connection to the server where the client asks a proxy of ours."""

    def next_layer(self, context: LayerContext) -> Layer:
        # A CONNECT may follow requests for URLs on the same connection.
        *outside, last = context.stack or ("",)
        if self.tunnel and last in TUNNELS and _is_to_proxy(outside):
            return Onward(self.tunnel, self._next_layer)
        return self._next_layer(context)

    def _next_layer(self, context: LayerContext) -> Layer:
        is_for_proxy = self.tunnel is not None and _is_to_proxy(context.stack)
        if self.unseen and not context.policy.is_strict and not is_for_proxy:
            return RelayUnseen(self.unseen)
        observe = self.observe()
        if not self.editing or not (self.editing.guards or self.editing.may_match(context)):
            return observe
        return Edit(self.editing, observe, self.next_layer)

    def observe(self) -> Observe:
        return Observe(self.intercept_tls(), self.editing.find if self.editing else None)

    def intercept_tls(self) -> InterceptTls:
        on_hello = self.editing.learn if self.editing else None
        return InterceptTls(
            tools=self.tls,
            client=self.client,
            process=self.process,
            redial=self.redial,
            on_hello=on_hello,
        )


def _is_to_proxy(stack: Sequence[str]) -> bool:
    """Whether what begins inside of these layers is said to the proxy itself."""
    return all(each == "http/1" for each in stack)


@dataclass(frozen=True, slots=True)
class Observe:
    """The layer that finds out what comes, and follows it; its bytes are relayed as they came."""

    tls: InterceptTls
    on_found: Callable[[int, str], None] | None = None
    """Is told of the protocol at a depth, once it is found."""

    async def run(self, bridge: Bridge, context: LayerContext) -> Inner | None:
        follower = Follower(bridge, context, on_found=self.on_found)
        engine = await follower.detect()
        match engine.outcome:
            case None:
                return None
            case Switch(inner):
                return Inner(bridge.inner(inner), engine.inner_context())
            case HandOver(_, speaker):
                return await self.tls.run(bridge, context, speaker, follower.seen_of_client)
            case _:
                assert_never(engine.outcome)
