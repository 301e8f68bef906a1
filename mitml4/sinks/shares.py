"""How flows share a bounded amount of memory: one may have as much as is still free.

A flow that floods gets half of the whole, and what is free then is another's; two get a third each.
So there is always room for a flow that has little (Choudhury and Hahne, "Dynamic queue length
thresholds for shared-memory packet switches", 1998).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["FairQueue", "Shares"]

Item = TypeVar("Item")


@dataclass(slots=True)
class Shares:
    """So many bytes, and how many of them each flow has."""

    limit: int
    total: int = 0
    _held: dict[int, int] = field(default_factory=dict)

    def take(self, flow: int, size: int) -> bool:
        """Whether the flow may have so many bytes more; then it has them."""
        held = self._held.get(flow, 0) + size
        if held > self.limit - self.total:
            return False
        self._held[flow] = held
        self.total += size
        return True

    def give_back(self, flow: int, size: int) -> None:
        self.total -= size
        self._held[flow] -= size
        if not self._held[flow]:
            del self._held[flow]


@dataclass(slots=True)
class FairQueue(Generic[Item]):
    """What waits to be written, in the order in which it came."""

    shares: Shares
    vital: Shares
    """Of what is never refused, as long as there is memory at all."""
    _waiting: deque[tuple[Item, int, int, bool]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: Item, flow: int, size: int, *, is_vital: bool = False) -> bool:
        """Take an item of a flow, of about so many bytes; False if there is no room for it."""
        shares = self.vital if is_vital else self.shares
        if not shares.take(flow, size):
            return False
        self._waiting.append((item, flow, size, is_vital))
        return True

    def take(self, count: int, size: int) -> list[Item]:
        """The first ones, up to so many, and up to about so many bytes; at least one."""
        taken: list[Item] = []
        while self._waiting and len(taken) < count and size > 0:
            item, flow, each, is_vital = self._waiting.popleft()
            (self.vital if is_vital else self.shares).give_back(flow, each)
            taken.append(item)
            size -= each
        return taken
