"""What an engine needs from its driver: an observer of the layers, and limits of their cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from mitml4.dataclass import dataclass
from mitml4.engine.budget import Budget
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    Conversation,
    Details,
    Direction,
    Speaker,
)
from mitml4.protocols.conversation import Protocol as ProtocolRow
from mitml4.protocols.protocol_event import ProtocolEvent, StreamLayer

__all__ = ["HOLD_S", "Observer", "Rules"]

HOLD_S: Final = 0.5
"""How long bytes that may not move yet are held back, by default."""


class Observer(Protocol):
    """Receives the layers of a flow."""

    def found(self, depth: int, protocol: str) -> None:
        """A layer begins. It is announced by `layer` later, or at once."""

    def layer(self, depth: int, protocol: str, speaker: Speaker, details: Details | None) -> None:
        """The details of a layer are known. Called once for each layer, outermost first."""

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent | StreamLayer, /) -> int:
        """Something happened in a conversation, or a layer began beside others (StreamLayer).
        Returns about how many bytes its event takes, without its payload."""

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        """The flow cannot be followed any further."""


def _converse(protocol: ProtocolRow, context: LayerContext) -> Conversation | None:
    return protocol.converse(context) if protocol.converse else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is the same at every depth of a flow."""

    budget: Budget | None = None
    """What the events and the CPU time of the conversations may cost. Without one, they may cost
    anything: where no other flow has to wait, the result must not depend on the machine."""
    converse: Callable[[ProtocolRow, LayerContext], Conversation | None] = _converse
    """Makes the conversation of a protocol; None: it is named, and relayed unseen."""
    hands_over_tls: bool = False
    """Whether the driver ends TLS itself."""
