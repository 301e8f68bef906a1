"""A hand on each step that tasks take, and a look at what they leave."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

_TIMEOUT_S = 30


class Steps(trio.abc.Instrument):
    """Counts how often a task and those below it have waited, and acts at one of these steps. Set
    `root` to the task, from which on they count."""

    def __init__(self, act_at: int | None, act: Callable[[], None]) -> None:
        self.act_at = act_at
        self.act = act
        self.root: trio.lowlevel.Task | None = None
        self.count = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._is_ours(task):
            return
        self.count += 1
        if self.count == self.act_at:
            self.act()

    def _is_ours(self, task: trio.lowlevel.Task | None) -> bool:
        while task and task is not self.root:
            nursery = task.parent_nursery
            task = nursery.parent_task if nursery else None
        return task is not None and self.root is not None


def open_descriptors() -> dict[str, str]:
    """What this process has open, by number; without the one that looks."""
    found = {}
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found[each.name] = os.readlink(each)
    return {number: target for number, target in found.items() if not target.endswith("/fd")}


@contextmanager
def nothing_left() -> Iterator[None]:
    """No descriptor, and no thread of a sink."""
    gc.collect()
    before = open_descriptors()
    yield
    deadline = time.monotonic() + _TIMEOUT_S
    while any(each.name == "writer" for each in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert open_descriptors() == before
