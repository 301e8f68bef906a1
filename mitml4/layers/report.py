"""The one place that makes the events of a flow.

It only reports. No layer reads anything from it: what a layer needs to know is in its
`LayerContext`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import field
from datetime import datetime
from typing import Literal

from mitml4 import events
from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.edit.editor import Applied, Failed
from mitml4.engine.plaintext import PlaintextReset, PlaintextUpdate
from mitml4.events import (
    Action,
    CloseReason,
    Event,
    LayerEvent,
    ProbeOutcome,
    content_weight,
    now,
)
from mitml4.net.listener import IncomingConnection
from mitml4.process import Process
from mitml4.protocols.conversation import Details, Direction, Speaker
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer
from mitml4.tls.probe import Case

__all__ = ["Report"]

Side = Literal["client", "server"]
Stage = Literal["connect", "detect", "handshake", "relay"]
Kind = Literal["refused", "timeout", "reset", "alert", "certificate", "protocol", "internal"]


@dataclass(slots=True)
class Report:
    """Publishes the events of one flow."""

    flow: int
    publish: Callable[[Event | PlaintextUpdate], None]
    wants: Callable[[type], bool] = lambda _kind: True
    """Whether anybody takes events of a class, or events with such a content."""
    clock: Callable[[], datetime] = now
    connect_s: float | None = None
    """How long it took to connect to the server; None until then."""
    _client: Address | None = None
    _process: Process | None = None
    _stack: list[str] = field(default_factory=list)
    _announced: int = 0
    """A bit for each depth whose layer was reported."""

    def open(
        self,
        connection: IncomingConnection,
        name: str | None,
        container: str | None = None,
        process: Process | None = None,
    ) -> None:
        """The flow begins. `name`: the name of its destination, if it is known."""
        self._client = connection.client
        self._process = process
        if self.wants(events.FlowOpen):
            self.publish(
                events.FlowOpen(
                    flow=self.flow,
                    client=connection.client,
                    destination=connection.destination,
                    interface=connection.interface,
                    name=name,
                    container=container,
                    process=process,
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
        """Report a layer of the stack, once, with its details."""
        if self._announced >> depth & 1:
            return
        self._announced |= 1 << depth
        self.publish(
            events.FlowLayer(
                time=self.clock(),
                flow=self.flow,
                depth=depth,
                protocol=self._stack[depth],
                speaker=speaker,
                action=action,
                details=details,
                connect_s=None if depth else self.connect_s,
            )
        )

    def reset(self, side: Side) -> None:
        """This side has reset the flow."""
        if self.wants(PlaintextReset):
            direction = Direction.UP if side == "client" else Direction.DOWN
            self.publish(
                PlaintextReset(flow=self.flow, time_ns=time.time_ns(), direction=direction)
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

    def probe(self, name: str, case: Case, outcome: ProbeOutcome, reason: str | None) -> None:
        """The client has met a defect."""
        assert self._client
        self.publish(
            events.ClientProbe(
                time=self.clock(),
                flow=self.flow,
                client=self._client,
                process=self._process,
                name=name,
                case=case.value,
                outcome=outcome,
                reason=reason,
            )
        )

    def applied(self, depth: int, applied: Applied | Failed) -> None:
        """An editor has done something, or has failed."""
        if isinstance(applied, Failed):
            self.publish(
                events.ScriptError(
                    time=self.clock(),
                    flow=self.flow,
                    depth=depth,
                    stream=applied.stream,
                    hook=applied.hook,
                    what=applied.what,
                    reason=applied.reason,
                )
            )
            return
        self.publish(
            events.RuleApplied(
                time=self.clock(),
                flow=self.flow,
                depth=depth,
                stream=applied.stream,
                rule=applied.rule,
                file=applied.file,
                match=applied.match,
                hook=applied.hook,
                what=applied.what,
                reason=applied.reason,
            )
        )

    def protocol_event(self, depth: int, content: ProtocolEvent | StreamLayer) -> int:
        """Something happened in a conversation. Its event is built only if somebody wants it.

        Returns the approximate memory of the event, in bytes, without its payload.
        """
        if isinstance(content, StreamLayer):
            self.enter(depth + 1, content.protocol)
            self.layer(depth + 1, "client", "relayed", None)
        elif self.wants(type(content)):
            depth += content.in_stream_layer
            event = LayerEvent(time=self.clock(), flow=self.flow, depth=depth, content=content)
            self.publish(event)
            return event.weight - content.payload_size
        return content_weight(content)
