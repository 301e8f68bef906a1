"""Relaying bytes that nobody looks at: what nothing recognised, what is named and no more, and what
may not cost a look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mitml4.events import Action
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import converse
from mitml4.layers.layer import Inner
from mitml4.layers.report import Speaker
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import FORWARD_ALL, Conversation, Details, Directive

__all__ = ["UNKNOWN", "RelayUnseen"]

UNKNOWN: Final = "unknown"
"""The name of a layer that nothing recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnseenDetails(Details):
    """Why the flow is relayed without a look."""

    passthrough: str


@dataclass(slots=True)
class Opaque(Conversation):
    """A conversation that looks at nothing."""

    label: str = UNKNOWN
    reason: str | None = None
    up: Directive = FORWARD_ALL
    down: Directive = FORWARD_ALL
    details_ready: bool = True

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.label

    def details(self) -> Details | None:  # type: ignore[override]
        return UnseenDetails(passthrough=self.reason) if self.reason else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayUnseen:
    """The layer that relays all that comes."""

    name: str = UNKNOWN
    speaker: Speaker = "client"
    reason: str | None = None
    """Why nobody looks, where the flow could have been looked at."""

    async def run(self, bridge: Bridge, context: LayerContext) -> Inner | None:
        conversation = Opaque(context=context, label=self.name, reason=self.reason)
        action: Action = "passthrough" if self.reason else "relayed"
        return await converse(bridge, context, conversation, self.speaker, action)
