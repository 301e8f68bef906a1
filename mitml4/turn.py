"""A limit of the time for which one task occupies the event loop.

A task does not block while its source has more data and its sink has room. So a loop over network
input measures the time since its task last ran a checkpoint, and runs one after a turn. It measures
time because the cost of a byte varies: a kilobyte may be one HTTP head, or five hundred empty
lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import field
from typing import Final

import trio

from mitml4.dataclass import dataclass

__all__ = ["TURN_S", "Turn"]

TURN_S: Final = 0.001


@dataclass(slots=True)
class Turn:
    """Measures the time since a task last ran a checkpoint."""

    length_s: float = TURN_S
    clock: Callable[[], float] = time.perf_counter
    _ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start a new turn; call it after anything that has blocked."""
        self._ends_at = self.clock() + self.length_s

    @property
    def is_over(self) -> bool:
        return self.clock() >= self._ends_at

    async def rest(self) -> None:
        """If the turn is over, let other tasks run, and start a new turn. Checkpoints only then."""
        if self.is_over:
            await trio.lowlevel.checkpoint()
            self.begin()
