"""How many connections there may be, which of them are looked at, and which begins next.

Each takes descriptors and memory, and both end. What there is of them is shared: one client gets
half of it, and half of that towards one server, so that the others always find some. Above the
share of those that are looked at, connections are relayed unseen, which takes little memory; above
the share of all, they are refused.

They begin in turns: of each client and server one at a time, so that who opens a thousand
connections delays nobody else's.
"""

from __future__ import annotations

import os
import resource
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeAlias

import trio

from mitml4.net.listener import IncomingConnection
from mitml4.session.flow import Services

__all__ = ["Arrival", "Crowd", "Limits"]

Key: TypeAlias = tuple[object, ...]

_OWN_DESCRIPTORS: Final = 48
"""Outputs, listeners, the guard, epoll: what a session has open besides its connections."""
_MEMORY_SHARE: Final = 1 / 4
_CARRIED_BYTES: Final = 32 * 1024
_LOOKED_AT_BYTES: Final = 256 * 1024
"""What a connection takes of this process's memory at most: a lane may hold a look each way."""
_MAX_PIPES: Final = 512

_AT_ONCE: Final = 8
"""So many of one client and server begin at once while there is nobody else: each takes some half
a millisecond, and 200 downloads that start at once still share alike."""
_PAIRS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session may take of the machine."""

    carried: int
    """Connections."""
    looked_at: int
    """Connections among them that are looked at."""
    pipes: int
    """Of two descriptors each, that are lent to those that move much."""
    descriptors: int
    """`ulimit -n`."""

    @classmethod
    def of_machine(cls) -> Limits:
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls.of(descriptors, memory)

    @classmethod
    def of(cls, descriptors: int, memory: int) -> Limits:
        """With so many descriptors, and so much memory in the machine, of which others need most.

        A connection takes two descriptors.
        """
        pipes = min(descriptors // 16, _MAX_PIPES)
        by_descriptors = max(1, (descriptors - _OWN_DESCRIPTORS - 2 * pipes) // 2)
        share = int(memory * _MEMORY_SHARE)
        carried = min(by_descriptors, share // _CARRIED_BYTES)
        looked_at = max(1, min(carried // 2, share // _LOOKED_AT_BYTES))
        return cls(carried, looked_at, pipes, descriptors)

    def __str__(self) -> str:
        return (
            f"{self.carried} at a time, half of them of one client (ulimit -n {self.descriptors})"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A connection that has come, and what its flow will need."""

    connection: IncomingConnection
    services: Services
    client: object
    """Whose it is: an address, or what can be told from others."""
    is_only_client: bool = False
    """Nobody else comes where it has come from, so that it may have all there is."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """What it counts to: all, its client, its client and server."""
        return (), (self.client,), (self.client, self.connection.destination)

    @property
    def halvings(self) -> tuple[int, ...]:
        """How often the whole is halved for the share of each key."""
        return (0, 0, 1) if self.is_only_client else (0, 1, 2)


class _Shares:
    """Counts by all, by client, and by client and server."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.levels: tuple[Counter[Key], ...] = (Counter(), Counter(), Counter())

    def take(self, arrival: Arrival) -> bool:
        """One more, where no share is used up."""
        counts = (level[key] for level, key in zip(self.levels, arrival.keys, strict=True))
        shares = (self.limit >> halved for halved in arrival.halvings)
        if any(count >= share for count, share in zip(counts, shares, strict=True)):
            return False
        for level, key in zip(self.levels, arrival.keys, strict=True):
            level[key] += 1
        return True

    def give_back(self, arrival: Arrival) -> None:
        for level, key in zip(self.levels, arrival.keys, strict=True):
            level[key] -= 1
            if not level[key]:
                del level[key]


class Crowd:
    """The connections of a session that wait to begin, and those that have begun."""

    def __init__(self, limits: Limits) -> None:
        self._carried = _Shares(limits.carried)
        self._looked_at = _Shares(limits.looked_at)
        self._waiting: dict[Key, deque[Arrival]] = {}
        self._has_come = trio.Event()

    def enter(self, arrival: Arrival) -> bool:
        """Let it wait for its turn; False if there is no room."""
        if not self._carried.take(arrival):
            return False
        self._waiting.setdefault(arrival.keys[-1], deque()).append(arrival)
        self._has_come.set()
        return True

    async def next(self) -> list[Arrival]:
        """Those that begin now, once there are any. They are to have a turn before it is asked for
        more."""
        await self._has_come.wait()
        at_once = _AT_ONCE if len(self._carried.levels[-1]) == 1 else 1
        arrivals: list[Arrival] = []
        for key in list(islice(self._waiting, _PAIRS_AT_ONCE)):
            row = self._waiting.pop(key)
            arrivals += (row.popleft() for _ in range(min(at_once, len(row))))
            if row:
                self._waiting[key] = row  # behind the others
        if not self._waiting:
            self._has_come = trio.Event()
        return arrivals

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def all_waiting(self) -> Iterator[Arrival]:
        """Those that have not begun, for which there will be no other turn."""
        for row in self._waiting.values():
            yield from row
        self._waiting.clear()
        self._has_come = trio.Event()

    def look_at(self, arrival: Arrival) -> bool:
        """Whether one that begins is looked at."""
        return self._looked_at.take(arrival)

    def leave(self, arrival: Arrival, *, looked_at: bool) -> None:
        """One that has begun is over."""
        self._carried.give_back(arrival)
        if looked_at:
            self._looked_at.give_back(arrival)
