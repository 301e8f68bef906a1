"""What one flow may cost: beyond that it is relayed unseen, and says so.

A flow can say much with few bytes: twelve make an event of HTTP/2, six one of a WebSocket. All
flows share one event loop, the interpreter, and the reader of the events. `Turn` and `Shares` bound
what a flow takes of these at one moment; a budget bounds what it takes in the long run, whatever
its protocol: the memory of its events, and the CPU time of its conversations.

The numbers are above what one busy connection can reach today, measured on one core: 3,500 requests
of HTTP/2 a second (h2load, 32 at a time) are 5.5 MB of events a second and 0.63 of the core;
10,000 messages of a WebSocket are 5.2 MB. A flood makes three times as many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Final

from mitml4.dataclass import dataclass

__all__ = ["EVENTS_BURST", "EVENTS_PER_S", "WORK_BURST_S", "WORK_SHARE", "Budget"]

EVENTS_PER_S: Final = 8 << 20
"""Bytes of memory that the events of a flow may take each second (`events.weight`): 16,000 small
ones, or 1,800 with the longest URL."""
EVENTS_BURST: Final = 2 * EVENTS_PER_S

WORK_SHARE: Final = 0.75
"""Of a second's CPU time."""
WORK_BURST_S: Final = 1.0


@dataclass(slots=True)
class _Bucket:
    """It fills by `rate` a second, up to `size`; what is taken may leave it in debt."""

    rate: float
    size: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.size

    def fill(self, seconds: float) -> None:
        self.level = min(self.size, self.level + seconds * self.rate)


@dataclass(slots=True)
class Budget:
    """One flow's, for all of its layers."""

    clock: Callable[[], float]
    """Seconds, monotonic."""
    _events: _Bucket = field(default_factory=lambda: _Bucket(EVENTS_PER_S, EVENTS_BURST))
    _work: _Bucket = field(default_factory=lambda: _Bucket(WORK_SHARE, WORK_BURST_S))
    _filled_at: float | None = None

    def spend(self, *, work_s: float, events: int) -> bool:
        """Take CPU seconds, and the weight of events. Whether the flow is within its budget."""
        now = self.clock()
        if self._filled_at is not None:
            for bucket in (self._events, self._work):
                bucket.fill(now - self._filled_at)
        self._filled_at = now
        self._work.level -= work_s
        self._events.level -= events
        return self._work.level >= 0 and self._events.level >= 0
