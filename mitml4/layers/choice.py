"""Which layer comes next on a bridge.

too deep, or nobody may look    RelayUnseen
nothing came before both ends   EndBoth
a side was reset first          ReportReset
not recognised, or named only   RelayUnseen
TLS                             InterceptTls
every other protocol            Observe
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, assert_never

from mitml4.events import Action
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import converse
from mitml4.layers.dispatch import Cut, Recognised, Silent, Unrecognised, dispatch
from mitml4.layers.layer import Inner, Layer
from mitml4.layers.redial import Redial
from mitml4.layers.report import Speaker
from mitml4.layers.tls import InterceptTls, TlsInterceptor
from mitml4.layers.unseen import UNKNOWN, RelayUnseen
from mitml4.protocols.context import MAX_DEPTH, LayerContext
from mitml4.protocols.conversation import Protocol
from mitml4.protocols.policy import Unreadable
from mitml4.protocols.tls.protocol import TlsConversation

__all__ = ["LayerChoice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice:
    """The layers of one flow."""

    tls: TlsInterceptor
    client: str
    """The client's address."""
    redial: Redial
    unseen: str | None = None
    """Why the flow is relayed without a look, if it is."""

    async def next_layer(self, bridge: Bridge, context: LayerContext) -> Layer:
        """Raises OSError when a side was reset before any byte came, and Blocked."""
        if self.unseen and not context.policy.is_strict:
            return RelayUnseen(reason=self.unseen)
        if context.depth >= MAX_DEPTH:
            context.policy.check(Unreadable("more layers than are followed"))
            return RelayUnseen()
        found = await dispatch(bridge, context)
        match found:
            case Recognised():
                return self._layer_of(found.protocol, found.speaker)
            case Unrecognised():
                return RelayUnseen(speaker=found.speaker)
            case Silent():
                return EndBoth()
            case Cut():
                return ReportReset(found)
            case _:
                assert_never(found)

    def _layer_of(self, protocol: Protocol, speaker: Speaker) -> Layer:
        if protocol.terminates:
            return InterceptTls(
                tools=self.tls, speaker=speaker, client=self.client, redial=self.redial
            )
        if protocol.converse is None:
            return RelayUnseen(name=protocol.name, speaker=speaker)
        return Observe(protocol, speaker)


@dataclass(frozen=True, slots=True)
class Observe:
    """A protocol's conversation is followed, and its bytes are relayed as they came."""

    protocol: Protocol
    speaker: Speaker

    async def run(self, bridge: Bridge, context: LayerContext) -> Inner | None:
        assert self.protocol.converse
        stays_closed = self.protocol.name == TlsConversation.name
        action: Action = "passthrough" if stays_closed else "relayed"
        conversation = self.protocol.converse(context)
        return await converse(bridge, context, conversation, self.speaker, action)


@dataclass(frozen=True, slots=True)
class EndBoth:
    """Both sides have ended without a byte: each end goes on to the other side."""

    async def run(self, bridge: Bridge, context: LayerContext) -> None:
        await bridge.follow(lambda direction: bridge.lane(direction).end())


@dataclass(frozen=True, slots=True)
class ReportReset:
    """A side was reset while it was not certain what comes: the best guess is the layer's name."""

    cut: Cut

    async def run(self, bridge: Bridge, context: LayerContext) -> NoReturn:
        name = self.cut.likely.name if self.cut.likely else UNKNOWN
        bridge.report.enter(context.depth, name)
        bridge.report.layer(context.depth, self.cut.speaker, "relayed", None)
        raise self.cut.error
