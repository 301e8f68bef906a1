"""What following a capture reports, in the order of the packets.

These are the offline counterparts of the `flow.*` events, which session/detect.py makes of them,
some later: what changes as the capture goes on is in the report. Times are seconds since the epoch,
from the packets. Reports are never changed, but they are not
frozen: that would more than double the time to make one.
"""

from __future__ import annotations

from typing import TypeAlias

from mitml4.capture.datagrams import DatagramFlow
from mitml4.capture.files.comments import CaptureSide
from mitml4.capture.flow import CloseReason, Flow
from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Direction, Speaker
from mitml4.protocols.protocol_event import ProtocolEvent

__all__ = ["AnyFlow", "Closed", "Fault", "FlowReport", "Happened", "Layer", "Opened", "Report"]


AnyFlow: TypeAlias = Flow | DatagramFlow


@dataclass(slots=True, kw_only=True)
class Opened:
    """The first packet of a flow. `name`: what its client had asked for, to get the address.
    `side`: what a comment of the packet says."""

    flow: AnyFlow
    time_s: float
    name: str | None = None
    side: CaptureSide | None = None


@dataclass(slots=True, kw_only=True)
class Layer:
    """A layer of a flow is known; outermost first, each depth once."""

    flow: AnyFlow
    time_s: float
    depth: int
    protocol: str
    speaker: Speaker
    details: Details | None
    opened: bool = False
    """Whether it is TLS that was decrypted."""
    connect_s: float | None = None
    """Of the outermost layer: how long the server took to accept the flow, if that was seen."""


@dataclass(slots=True, kw_only=True)
class Happened:
    """Something happened in a layer, such as an HTTP request."""

    flow: AnyFlow
    time_s: float
    depth: int
    protocol_event: ProtocolEvent


@dataclass(slots=True, kw_only=True)
class Fault:
    """The flow can be followed no further: a broken protocol, or missing bytes."""

    flow: AnyFlow
    time_s: float
    depth: int
    innermost: int
    """The depth of the innermost layer."""
    direction: Direction
    reason: str


@dataclass(slots=True, kw_only=True)
class Closed:
    """The last report of a flow. `stack` has the names of its layers."""

    flow: AnyFlow
    time_s: float
    stack: tuple[str, ...]
    reason: CloseReason


FlowReport: TypeAlias = Opened | Layer | Fault | Closed
"""What the `flow.*` events tell."""

Report: TypeAlias = FlowReport | Happened
