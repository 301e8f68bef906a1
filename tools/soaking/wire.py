"""Two links that lose, delay and reorder frames, between TAP interfaces.

    python -m soaking.wire SEED FD FD FD FD

A frame that is read from one descriptor of a pair is written to the other one. Lines of JSON on
standard input set how: `{"loss": 0.05, "delay_s": 0.02, "jitter_s": 0.05}`. A frame that is delayed
by more than the next one comes behind it. The kernel's netem does the same where a kernel has it;
this needs only TAP interfaces, and a seed makes the same choices again.
"""

from __future__ import annotations

import heapq
import io
import json
import os
import random
import select
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

__all__ = ["main"]

_FRAME_BYTES: Final = 65536
_AT_ONCE: Final = 64
_MAX_DELAYED: Final = 4096
"""Frames; more are lost, as in the queue of a router."""


class Wire:
    def __init__(self, seed: int, descriptors: Sequence[int]) -> None:
        self._random = random.Random(seed)
        pairs = list(zip(descriptors[::2], descriptors[1::2], strict=True))
        self._other = dict(pairs) | {right: left for left, right in pairs}
        self._loss = self._delay_s = self._jitter_s = 0.0
        self._delayed: list[tuple[float, int, int, bytes]] = []
        """When, a number that keeps the order, to which descriptor, the frame."""
        self._count = 0
        self._orders = io.FileIO(sys.stdin.fileno(), closefd=False)

    def run(self) -> None:
        """Until the end of standard input."""
        poll = select.epoll()
        for each in (sys.stdin.fileno(), *self._other):
            poll.register(each, select.EPOLLIN)
        while True:
            for ready, _ in poll.poll(self._time_left_s()):
                if ready != sys.stdin.fileno():
                    self._carry(ready)
                elif not self._obey():
                    return
            self._deliver()

    def _time_left_s(self) -> float:
        return max(0.0, self._delayed[0][0] - time.monotonic()) if self._delayed else -1

    def _obey(self) -> bool:
        line = self._orders.readline()
        if not line:
            return False
        order = json.loads(line)
        self._loss = order["loss"]
        self._delay_s = order["delay_s"]
        self._jitter_s = order["jitter_s"]
        return True

    def _carry(self, source: int) -> None:
        sink = self._other[source]
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(source, _FRAME_BYTES)
            except OSError:  # no frame is left, or the interface is down
                return
            if self._loss and self._random.random() < self._loss:
                continue
            if self._delay_s or self._jitter_s or self._delayed:
                self._delay(sink, frame)
            else:
                _write(sink, frame)

    def _delay(self, sink: int, frame: bytes) -> None:
        if len(self._delayed) == _MAX_DELAYED:
            return
        wait_s = self._delay_s + self._jitter_s * self._random.random()
        self._count += 1
        heapq.heappush(self._delayed, (time.monotonic() + wait_s, self._count, sink, frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            _, _, sink, frame = heapq.heappop(self._delayed)
            _write(sink, frame)


def _write(sink: int, frame: bytes) -> None:
    with suppress(OSError):  # the interface is down
        os.write(sink, frame)


def main() -> None:
    seed, *descriptors = map(int, sys.argv[1:])
    with suppress(KeyboardInterrupt):
        Wire(seed, descriptors).run()


if __name__ == "__main__":
    main()
