"""The events of a worker's flows, on their way to the session, which has the sinks.

An event that only JSON lines want is sent as its line. Where too many wait for the session, those
that are not vital are dropped, and counted there.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from mitml4.events import VITAL, FlowClose, FlowLayer, FlowOpen, LayerEvent
from mitml4.protocols.http.events import HttpEnd, HttpRequest
from mitml4.session.reporting.hub import Hub
from mitml4.session.workers.channel import Channel
from mitml4.session.workers.packing import CLOSES, LAYERS
from mitml4.sinks.jsonl import Line, line_of
from mitml4.sinks.updates import OutputFailed, Published

__all__ = ["ForwardingHub", "SentLine"]

SentLine: TypeAlias = tuple[int, int, bytes]
"""The fields of a Line, which are pickled in a tenth of the time that it takes."""

_OF_THE_SESSION: Final = (FlowOpen, OutputFailed)
"""Events that it publishes itself."""
_MAX_UNSENT: Final = 32 << 20
"""Bytes that may wait for the session; beyond them, events that are not vital are dropped."""


class ForwardingHub(Hub):
    """Hands events over to the session, in the form that the session needs."""

    def __init__(self, hub: Hub, channel: Channel, *, headers: bool) -> None:
        """`headers`: whether lines have those of messages."""
        super().__init__()
        self._headers = headers
        self._original = hub
        self._channel = channel
        self._as_lines: dict[type, bool] = {}
        # The session ends what is open if this process ends before, as far as ends are reported.
        self._exchanges: Final = {HttpRequest, HttpEnd} if hub.wants(HttpEnd) else set()

    def wants(self, kind: type) -> bool:
        return kind not in _OF_THE_SESSION and self._original.wants(kind)

    def publish(self, event: Published) -> None:
        kind = type(event)
        if kind is LayerEvent:
            self._publish_content(event)  # type: ignore[arg-type]  # it is one
        elif kind is FlowClose:
            self._channel.gather(("close", CLOSES.values(event)))  # type: ignore[arg-type]
        elif kind in _OF_THE_SESSION:
            return
        elif self._channel.unsent_bytes > _MAX_UNSENT and kind not in VITAL:
            self._channel.gather(("lost",))
        elif kind is FlowLayer:
            self._channel.gather(("layer", LAYERS.values(event)))  # type: ignore[arg-type]
        else:
            self._channel.gather(("event", event))

    def _publish_content(self, event: LayerEvent) -> None:
        kind = type(event.content)
        sent: LayerEvent | SentLine | None = event
        if self._channel.unsent_bytes > _MAX_UNSENT:
            sent = None
        elif self._is_line(kind):
            sent = event.flow, event.weight, line_of(event, headers=self._headers)
        if kind in self._exchanges:
            stream: int = event.content.stream  # type: ignore[attr-defined]
            place = event.depth, stream
            self._channel.gather(("exchange", event.flow, place, kind is HttpRequest, sent))
        else:
            self._channel.gather(("event", sent) if sent else ("lost",))

    def _is_line(self, kind: type) -> bool:
        if kind not in self._as_lines:
            self._as_lines[kind] = self._original.takers_all_want(kind, Line)
        return self._as_lines[kind]
