"""How long one task may keep the event loop.

Nothing makes a task wait while its source has more and its sink has room. So a loop over network
input counts the time since its task last let the others run, and lets them run once that is a
turn's length. A clock is needed because the price of a byte is not known: a kilobyte may be one
head, or five hundred empty lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

__all__ = ["TURN_S", "Turn"]

TURN_S: Final = 0.001


@dataclass(slots=True)
class Turn:
    """The time since a task last let the others run."""

    length_s: float = TURN_S
    clock: Callable[[], float] = time.perf_counter
    _ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """To be called after anything that has waited."""
        self._ends_at = self.clock() + self.length_s

    @property
    def is_over(self) -> bool:
        return self.clock() >= self._ends_at

    async def rest(self) -> None:
        """Let the others run if it is over, and begin the next one. Checkpoints only then."""
        if self.is_over:
            await trio.lowlevel.checkpoint()
            self.begin()
