"""Shares a bounded amount of memory among flows: each may hold no more than is still free.

One flow that floods gets half of the whole, and the other half stays free; two get a third each. So
there is always room for a flow that needs little (Choudhury and Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", 1998).
"""

from __future__ import annotations

from collections import deque
from dataclasses import field
from typing import Generic, TypeVar

from mitml4.dataclass import dataclass

__all__ = ["FairQueue", "Shares"]

Item = TypeVar("Item")


@dataclass(slots=True)
class Shares:
    """A number of bytes, and how many of them each flow has."""

    limit: int
    total: int = 0
    _held: dict[int, int] = field(default_factory=dict)

    def take(self, flow: int, size: int) -> bool:
        """Give a flow this many more bytes; False if it may not have them."""
        held = self._held.get(flow, 0) + size
        if held > self.limit - self.total:
            return False
        self._held[flow] = held
        self.total += size
        return True

    def give_back(self, flow: int, size: int) -> None:
        self.total -= size
        held = self._held[flow] - size
        if held:
            self._held[flow] = held
        else:
            del self._held[flow]


@dataclass(slots=True)
class FairQueue(Generic[Item]):
    """A queue in which each flow has a share."""

    shares: Shares
    vital: Shares
    """The memory for vital items."""
    _waiting: deque[tuple[Item, int, int, bool]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Item, flow: int, size: int, *, is_vital: bool = False) -> bool:
        """Append an item of a flow with its approximate size; False if there is no room."""
        shares = self.vital if is_vital else self.shares
        if not shares.take(flow, size):
            return False
        self._waiting.append((item, flow, size, is_vital))
        return True

    def take(self, count: int, size: int) -> list[Item]:
        """Remove the first items, up to a number and approximate size, but at least one."""
        taken: list[Item] = []
        while self._waiting and len(taken) < count and size > 0:
            item, flow, each, is_vital = self._waiting.popleft()
            (self.vital if is_vital else self.shares).give_back(flow, each)
            taken.append(item)
            size -= each
        return taken
