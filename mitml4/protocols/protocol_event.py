"""The events of protocols: what a conversation reports besides its details.

A protocol declares its events in its own file, each as a frozen dataclass whose fields are the
fields of the JSON object. Its row in the registry lists the classes. A conversation appends events
to `protocol_events`. Time, flow and depth are added where they are published (`LayerEvent` in
mitml4/events.py).
"""

from __future__ import annotations

from typing import ClassVar

from mitml4.dataclass import dataclass

__all__ = ["ProtocolEvent", "StreamLayer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolEvent:
    """Something that happened in a conversation. For subclassing.

    Fields hold what those of `Details` hold, float, or an Enum; None if unknown. The docstring of
    the class is its description in the JSON Schema.
    """

    type: ClassVar[str]
    """The `type` of the JSON object, such as `http.request`."""

    @property
    def summary(self) -> str | None:
        """A few words for tables; None: they do not show it."""
        return None

    @property
    def payload_size(self) -> int:
        """How much of its memory is payload, which has separate bounds."""
        return 0

    @property
    def in_stream_layer(self) -> bool:
        """Whether it belongs to a `StreamLayer` of the conversation, which is one layer further
        in."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLayer:
    """A protocol began in a stream of this layer, beside other streams (RFC 8441).

    It is a layer of the stack, so it becomes a `flow.layer` event.
    """

    protocol: str
