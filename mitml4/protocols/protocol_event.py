"""What a conversation tells besides its details: the events of its protocol.

A protocol declares its events in its own file, each as a frozen dataclass whose fields are the
fields of the JSON object, and names their classes in its row of the registry. A conversation
appends them to `protocol_events`. Time, flow and depth are added where they are published
(`LayerEvent` in mitml4/events.py), so a conversation knows nothing of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["ProtocolEvent", "StreamLayer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolEvent:
    """Something that happened in a conversation.

    Fields hold what those of `Details` hold, float, or an Enum; unknown is None. The docstring of
    the class is its description in the JSON Schema.
    """

    type: ClassVar[str]
    """The `type` of the JSON object, such as `http.request`."""

    @property
    def summary(self) -> str | None:
        """What a table shows of it, in a few words; None: nothing."""
        return None

    @property
    def in_stream_layer(self) -> bool:
        """Whether it belongs to a `StreamLayer` of the conversation, one layer further in."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLayer:
    """A protocol began within a stream of this layer, beside others (RFC 8441).

    It is a layer of the stack, and so it becomes a `flow.layer` event.
    """

    protocol: str
