"""What has to be done at a time of the capture: flows that end because nothing comes any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import inf
from typing import TypeAlias

__all__ = ["Agenda", "Due"]

Due: TypeAlias = tuple[float, int]
"""When it is due, and the number of the flow."""


class Agenda:
    """Of one capture. Time passes with each packet, whatever flow it belongs to, so what is due
    depends on nothing else."""

    __slots__ = ("_entries", "due_s")

    def __init__(self) -> None:
        self.due_s = inf
        """When the next entry is due."""
        self._entries: list[tuple[float, int, Callable[[float, int], None]]] = []

    def add(self, due_s: float, number: int, act: Callable[[float, int], None]) -> None:
        """`act` will be called with the time and this number of a flow, which has no other entry
        for the same time."""
        heappush(self._entries, (due_s, number, act))
        self.due_s = self._entries[0][0]

    def pass_to(self, time_s: float) -> Iterator[Due]:
        """Do what is due by now, and yield after each."""
        while self._entries and self.due_s <= time_s:
            due_s, number, act = heappop(self._entries)
            self.due_s = self._entries[0][0] if self._entries else inf
            act(time_s, number)
            yield due_s, number
