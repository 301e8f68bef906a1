"""What a layer's work is charged with."""

from __future__ import annotations

import pytest

from mitml4.engine.budget import WORK_BURST_S, Budget
from mitml4.engine.meter import Meter


def test_time_that_other_processes_took_is_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the first time, before which the thread has worked for others."""
    cpu_s = [100.0]
    monkeypatch.setattr("time.thread_time", lambda: cpu_s[0])
    metered = Meter(Budget(clock=lambda: 0.0))
    cpu_s[0] += WORK_BURST_S / 2
    assert metered.charge(2 * WORK_BURST_S)
    cpu_s[0] += WORK_BURST_S
    assert not metered.charge(2 * WORK_BURST_S)
