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
    """Do nothing until more than `beyond` bytes are there (None: until any arrive), or until
    the time `until`."""

    beyond: int | None = 0
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Yield:
    """Do nothing until the other direction and other flows have had their turn; then ask again."""


@dataclass(frozen=True, slots=True)
class Move:
    """Send the first `count` bytes: the conversation has claimed them. They may be sent together
    with the bytes behind them that have already arrived."""

    count: int


@dataclass(frozen=True, slots=True)
class MoveAhead:
    """Send the first `count` bytes now, before the conversation has claimed them. The engine
    keeps a copy for it."""

    count: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """Move what comes, at most `count` bytes (None: no limit): give each piece to `Engine.mirror`,
    then send it."""

    count: int | None = None


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
    """The driver terminates this layer itself (TLS). None of its bytes has been claimed."""

    protocol: Protocol
    speaker: Speaker


Action: TypeAlias = Wait | Yield | Move | MoveAhead | Forward | Mirror | End | Switch | HandOver
"""`Forward`: move the next bytes unseen (they may be spliced), and tell `Engine.forwarded`."""

WAIT: Final = Wait()
YIELD: Final = Yield()
MIRROR_ALL: Final = Mirror()
END: Final = End()
PASS_END: Final = End(is_over=False)
