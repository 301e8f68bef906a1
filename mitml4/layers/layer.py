"""What takes a connection from one depth to the next.

`session/flows/flow.py` only loops: it asks `layers/choice.py` which layer comes next on a bridge,
runs it, and goes on with what that layer leaves, until one leaves nothing.
"""

from __future__ import annotations

from typing import Protocol

from mitml4.dataclass import dataclass
from mitml4.layers.bridge import Bridge
from mitml4.protocols.context import LayerContext

__all__ = ["HandshakeError", "Inner", "Layer"]


class HandshakeError(Exception):
    """The handshake failed, and the other side has been sent the failure; the flow is over."""


@dataclass(frozen=True, slots=True)
class Inner:
    """What a layer leaves to the next one: the bytes inside it, and the context they are in."""

    bridge: Bridge
    context: LayerContext


class Layer(Protocol):
    """One layer of a flow."""

    async def run(self, bridge: Bridge, context: LayerContext) -> Inner | None:
        """Carry the bridge's bytes to the end of this layer; None when the flow is over.

        The bridge stays the caller's to close. Raises OSError when a side breaks, Blocked when the
        flow may not go where the client asks, HandshakeError when a handshake has ended it.
        """
