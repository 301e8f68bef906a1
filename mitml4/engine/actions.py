"""What a driver has to do next in one direction of a flow, as data."""

from __future__ import annotations

import math
from typing import Final, TypeAlias

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Forward, InnerProtocol, Protocol, Speaker

__all__ = [
    "END",
    "MIRROR_ALL",
    "PASS_END",
    "WAIT",
    "YIELD",
    "Action",
    "End",
    "Forward",
    "HandOver",
    "Mirror",
    "Move",
    "MoveAhead",
    "Switch",
    "Wait",
    "Yield",
]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing, until there are more than `beyond` bytes (None: whatever comes), or `until`."""

    beyond: int | None = 0
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Yield:
    """Nothing, until the other direction and other flows have had their turn; then ask again."""


@dataclass(frozen=True, slots=True)
class Move:
    """Send the first `count` bytes: they are claimed. They may wait for those behind them that are
    there already."""

    count: int


@dataclass(frozen=True, slots=True)
class MoveAhead:
    """Send the first `count` bytes now, although nobody has claimed them yet. The engine keeps a
    copy for the conversation."""

    count: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """Move what comes: give each piece to `Engine.mirror`, then send it."""


@dataclass(frozen=True, slots=True)
class End:
    """Pass the end of the direction on."""

    is_over: bool = True
    """Whether the direction is over; otherwise ask again, since an inner layer may still begin."""


@dataclass(frozen=True, slots=True)
class Switch:
    """An inner layer begins with the next byte of both directions."""

    inner: InnerProtocol


@dataclass(frozen=True, slots=True)
class HandOver:
    """The layer is one that the driver ends itself (TLS). No byte of it has been claimed."""

    protocol: Protocol
    speaker: Speaker


Action: TypeAlias = Wait | Yield | Move | MoveAhead | Forward | Mirror | End | Switch | HandOver
"""`Forward`: move the next bytes unseen (they may be spliced), and tell `Engine.forwarded`."""

WAIT: Final = Wait()
YIELD: Final = Yield()
MIRROR_ALL: Final = Mirror()
END: Final = End()
PASS_END: Final = End(is_over=False)
