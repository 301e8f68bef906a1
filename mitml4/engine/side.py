"""One direction of a layer: its state, and what is kept of it between two actions."""

from __future__ import annotations

from enum import Enum
from typing import Final

from mitml4.enums import plain_members
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MIRROR,
    PAUSE,
    PEEK,
    SWITCH,
    Direction,
    Directive,
    Forward,
)

__all__ = ["NO_MORE", "STATES", "WINDOW", "Side", "State"]

WINDOW: Final = 2048
"""How many bytes a conversation is shown at first; more if it takes none of them. So it reports
many small messages a few at a time."""
_FIRST_MIRRORED: Final = 256


@plain_members
class State(Enum):
    DETECT = "detect"
    PEEK = "peek"
    MIRROR = "mirror"
    FORWARD = "forward"
    PAUSE = "pause"
    SWITCH = "switch"
    GUARD = "guard"
    ENDING = "ending"
    OVER = "over"

    __hash__ = object.__hash__


STATES: Final = {
    PEEK: State.PEEK,
    MIRROR: State.MIRROR,
    PAUSE: State.PAUSE,
    SWITCH: State.SWITCH,
}
"""The state that each directive leads to; Forward leads to FORWARD."""
NO_MORE: Final = (State.ENDING, State.OVER)
"""The direction has ended."""


class Side:
    """One direction."""

    __slots__ = (
        "ahead",
        "direction",
        "directive",
        "end_learned",
        "end_passed",
        "forward",
        "held_since",
        "holds",
        "is_cut",
        "is_released",
        "is_stale",
        "mirror_window",
        "state",
        "tried",
        "window",
    )

    def __init__(self, direction: Direction, ahead: bytearray) -> None:
        self.direction = direction
        self.ahead = ahead
        """Bytes that have moved before the conversation claimed them."""
        self.state = State.DETECT
        self.directive: Directive | None = None
        """What the conversation has decided last."""
        self.forward: Forward = FORWARD_ALL
        """How much may move in FORWARD."""
        self.tried = 0
        """How many unclaimed bytes have already been shown without a result."""
        self.window = WINDOW
        self.mirror_window = _FIRST_MIRRORED
        self.held_since: float | None = None
        """When the first byte that is held back arrived."""
        self.holds = False
        """Whether bytes of it wait."""
        self.end_learned = False
        """Whether detection knows of its end."""
        self.end_passed = False
        self.is_cut = False
        """Whether bytes of it are missing, so that those behind them cannot be read."""
        self.is_released = False
        """Whether it moves unseen whatever the conversation decides."""
        self.is_stale = False
        """Whether its last action is out of date."""

    def may_forward(self, count: int) -> int:
        """How many of so many bytes are the conversation's in FORWARD."""
        left = self.forward.count
        return count if left is None else min(left, count)

    @property
    def excludes_inner(self) -> bool:
        """Whether no inner layer can begin in it: MIRROR and an endless Forward end with it."""
        if self.state is State.FORWARD:
            return self.forward.count is None
        return self.state is State.MIRROR or self.state in NO_MORE
