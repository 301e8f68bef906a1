"""What a layer has cost, and its flow's budget has not been charged with yet."""

from __future__ import annotations

import time
from typing import Final

from mitml4.engine.budget import Budget

__all__ = ["WORK_S", "Meter"]

WORK_S: Final = 0.001
"""Seconds after which a call of the engine returns, so that the driver can let other flows run."""
_UNCHARGED_BYTES: Final = 16384
"""Events of so many bytes are charged together, and so is CPU time of WORK_S."""


class Meter:
    """Charges a budget, if there is one."""

    __slots__ = ("_budget", "_charged_at_s", "_work_s", "weight")

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self._work_s = 0.0
        self.weight = 0
        """Bytes of the events since the last charge."""
        self._charged_at_s = time.thread_time() if budget else 0.0
        """The thread's CPU time when it was last charged."""

    @property
    def is_due(self) -> bool:
        """Whether the events since the last charge are worth one."""
        return self.weight > _UNCHARGED_BYTES

    def charge(self, work_s: float) -> bool:
        """Add what a call took, in seconds. Returns whether the flow is within its budget."""
        if self._budget is None:
            self.weight = 0
            return True
        self._work_s += work_s
        if self.weight <= _UNCHARGED_BYTES and self._work_s <= WORK_S:
            return True
        work_s = 0.0
        if self._work_s > WORK_S:
            # The thread's clock costs twenty times as much as the other, so it is read only here.
            # It does not count the time of other processes.
            cpu_s = time.thread_time()
            work_s = min(self._work_s, cpu_s - self._charged_at_s)
            self._work_s, self._charged_at_s = 0.0, cpu_s
        weight, self.weight = self.weight, 0
        return self._budget.spend(work_s=work_s, events=weight)
