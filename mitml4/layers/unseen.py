"""Relaying a flow that may not cost a look."""

from __future__ import annotations

from mitml4.dataclass import dataclass
from mitml4.engine.engine import UNKNOWN
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Details

__all__ = ["RelayUnseen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenDetails(Details):
    """Why the flow is relayed without a look."""

    passthrough: str


@dataclass(frozen=True, slots=True)
class RelayUnseen:
    """The layer that relays all that comes."""

    reason: str
    """Why nobody looks."""

    async def run(self, bridge: Bridge, context: LayerContext) -> None:
        details = UnseenDetails(passthrough=self.reason)
        await Follower(bridge, context, "passthrough").relay(UNKNOWN, "client", details)
