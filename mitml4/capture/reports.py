"""What following a capture tells, in the order in which the packets show it.

These are the offline twins of the `flow.*` events; whoever prints them turns one into the other.
Times are seconds since the epoch, from the packets. Nobody changes a report; to say so (frozen)
would more than double the time that it takes to make one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mitml4.capture.flow import CloseReason, Flow
from mitml4.protocols.conversation import Details, Direction, Speaker
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = ["Closed", "Fault", "Layer", "Noticed", "Opened", "Report"]


@dataclass(slots=True, kw_only=True)
class Opened:
    """A flow's first packet."""

    flow: Flow
    time_s: float


@dataclass(slots=True, kw_only=True)
class Layer:
    """A layer of a flow's stack is known, outermost first, each depth once."""

    flow: Flow
    time_s: float
    depth: int
    protocol: str
    speaker: Speaker
    details: Details | None
    opened: bool = False
    """Whether it is TLS that was decrypted."""


@dataclass(slots=True, kw_only=True)
class Noticed:
    """Something happened in a layer: an HTTP message, a WebSocket message."""

    flow: Flow
    time_s: float
    depth: int
    protocol_event: ProtocolEvent


@dataclass(slots=True, kw_only=True)
class Fault:
    """From here on a flow could not be followed: a broken protocol, or bytes that are missing."""

    flow: Flow
    time_s: float
    depth: int
    innermost: int
    """The depth of the last layer that is known of the flow."""
    direction: Direction
    reason: str


@dataclass(slots=True, kw_only=True)
class Closed:
    """The last of a flow. `stack` is the names of its layers."""

    flow: Flow
    time_s: float
    stack: tuple[str, ...]
    reason: CloseReason


Report: TypeAlias = Opened | Layer | Noticed | Fault | Closed
