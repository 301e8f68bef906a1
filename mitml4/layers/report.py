"""What a flow says of itself: the one place that makes flow events, and keeps the stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from mitml4 import events
from mitml4.events import Action, Event, now, weight
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
    stack: list[str] = field(default_factory=list)
    _announced: set[int] = field(default_factory=set)

    def push(self, protocol: str) -> int:
        """A protocol was found inside the others; returns its depth."""
        self.stack.append(protocol)
        return len(self.stack) - 1

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
                protocol=self.stack[depth],
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
                depth=max(len(self.stack) - 1, 0),
                side=side,
                stage=stage,
                kind=kind,
                reason=reason,
            )
        )

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent) -> int:
        """Something that happened in a conversation. Returns what its event weighs."""
        if isinstance(protocol_event, StreamLayer):
            self.layer(self.push(protocol_event.protocol), "client", "relayed", None)
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
