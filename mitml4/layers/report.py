"""What a flow says of itself: the one place that makes flow events.

It reports, and is asked nothing: what a layer needs to know is in its `LayerContext`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from mitml4 import events
from mitml4.events import Action, CloseReason, Event, now, weight
from mitml4.net.listener import IncomingConnection
from mitml4.protocols import conversation
from mitml4.protocols.conversation import Details, ProtocolEvent, StreamLayer, WebSocketMessage
from mitml4.protocols.wire_text import pairs

__all__ = ["Report", "event_of"]

Side = Literal["client", "server"]
Stage = Literal["connect", "detect", "handshake", "relay"]
Kind = Literal["refused", "timeout", "reset", "alert", "certificate", "protocol", "internal"]
Speaker = Literal["client", "server"]


_EVENT_OF: Final[dict[type[ProtocolEvent], Callable[..., Event]]] = {
    conversation.HttpRequest: events.HttpRequest,
    conversation.HttpResponse: events.HttpResponse,
    conversation.HttpEnd: events.HttpEnd,
    conversation.WebSocketMessage: events.WebSocketMessage,
}


@dataclass(slots=True)
class Report:
    """Publishes the events of one flow."""

    flow: int
    publish: Callable[[Event], None]
    with_headers: bool = False
    clock: Callable[[], datetime] = now
    _stack: list[str] = field(default_factory=list)
    _announced: set[int] = field(default_factory=set)

    def open(self, connection: IncomingConnection, name: str | None) -> None:
        """The flow begins. `name`: what its destination is called, where that is known."""
        self.publish(
            events.FlowOpen(
                flow=self.flow,
                client=connection.client,
                destination=connection.destination,
                interface=connection.interface,
                name=name,
            )
        )

    def close(self, reason: CloseReason, *, up: int, down: int, duration_s: float) -> None:
        """The flow is over; so many bytes went up and down."""
        self.publish(
            events.FlowClose(
                flow=self.flow,
                stack=tuple(self._stack),
                reason=reason,
                bytes_up=up,
                bytes_down=down,
                duration_s=duration_s,
            )
        )

    def enter(self, depth: int, protocol: str) -> None:
        """A protocol was found at this depth, inside the others."""
        self._stack[depth:] = [protocol]

    def layer(self, depth: int, speaker: Speaker, action: Action, details: Details | None) -> None:
        """Announce a layer of the stack, once, with all that is known of it."""
        if depth in self._announced:
            return
        self._announced.add(depth)
        self.publish(
            events.FlowLayer(
                time=self.clock(),
                flow=self.flow,
                depth=depth,
                protocol=self._stack[depth],
                speaker=speaker,
                action=action,
                details=details,
            )
        )

    def error(self, side: Side, stage: Stage, kind: Kind, reason: str) -> None:
        self.publish(
            events.FlowError(
                time=self.clock(),
                flow=self.flow,
                depth=max(len(self._stack) - 1, 0),
                side=side,
                stage=stage,
                kind=kind,
                reason=reason,
            )
        )

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent) -> int:
        """Something that happened in a conversation. Returns what its event weighs."""
        if isinstance(protocol_event, StreamLayer):
            self.enter(depth + 1, protocol_event.protocol)
            self.layer(depth + 1, "client", "relayed", None)
            return 0
        event = event_of(
            protocol_event,
            time=self.clock(),
            flow=self.flow,
            depth=depth,
            with_headers=self.with_headers,
        )
        self.publish(event)
        return weight(event)


def event_of(
    protocol_event: ProtocolEvent, *, time: datetime, flow: int, depth: int, with_headers: bool
) -> Event:
    """What the events call a notice of a flow's layer at this depth."""
    said = {name: getattr(protocol_event, name) for name in protocol_event.__slots__}
    if "headers" in said:
        said["headers"] = pairs(said["headers"]) if with_headers else None
    if "direction" in said:
        said["direction"] = said["direction"].value
    if isinstance(protocol_event, WebSocketMessage) and protocol_event.stream is not None:
        depth += 1
    return _EVENT_OF[type(protocol_event)](time=time, flow=flow, depth=depth, **said)
