"""What is inside the tunnel of a proxy goes on between the client and the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.layers.bridge import Bridge
from mitml4.layers.layer import Inner, Layer
from mitml4.net.stream import Stream
from mitml4.protocols.context import LayerContext
from mitml4.protocols.policy import FlowPolicy

__all__ = ["TUNNELS", "Onward", "Opened"]

TUNNELS: Final = frozenset({"socks4", "socks5", "http-connect"})


@dataclass(frozen=True, slots=True)
class Opened:
    """A tunnel, as the client was told of it."""

    stream: Stream
    sent: bytes
    """What the client has sent to the proxy that is for the server."""
    policy: FlowPolicy
    hold_s: float


@dataclass(frozen=True, slots=True)
class Onward:
    """Puts the server in the proxy's place, before the layers inside the tunnel."""

    take: Callable[[], Opened]
    next_layer: Callable[[LayerContext], Layer]

    async def run(self, bridge: Bridge, context: LayerContext) -> Inner | None:
        opened = self.take()
        if opened.sent:
            await opened.stream.send_all(memoryview(opened.sent))
        context = replace(context, policy=opened.policy, hold_s=opened.hold_s)
        onward = bridge.through(opened.stream)
        onward.put_under(opened.policy)
        return await self.next_layer(context).run(onward, context)
