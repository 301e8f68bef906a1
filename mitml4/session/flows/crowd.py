"""How many connections are accepted, which of them are inspected, and which one starts next.

A connection takes descriptors and memory, and both are limited. One client gets half of them, and
half of that for one server, so that there is room for other clients. Beyond its share of inspected
connections, a client's connections are relayed unseen, which takes little memory; beyond its share
of all connections, they are refused.

Connections start round-robin, one for each client and server at a time, so that a client with a
thousand connections does not delay others.
"""

from __future__ import annotations

import os
import resource
from collections import deque
from collections.abc import Iterator
from dataclasses import field
from itertools import islice
from typing import Final, TypeAlias

import trio

from mitml4.dataclass import dataclass
from mitml4.net.listener import IncomingConnection
from mitml4.process import RunningProcess
from mitml4.session.flows.services import Services

__all__ = ["Crowd", "Limits", "QueuedConnection"]

Key: TypeAlias = tuple[object, ...]

_OWN_DESCRIPTORS: Final = 48
"""What a session has open besides its connections: outputs, listeners, the guard, epoll."""
_MEMORY_SHARE: Final = 1 / 4
_CARRIED_BYTES: Final = 32 * 1024
_LOOKED_AT_BYTES: Final = 256 * 1024
"""The most memory that an inspected connection takes: each lane may hold what it has peeked."""
_MAX_PIPES: Final = 512

_AT_ONCE: Final = 8
"""How many connections start together while all are of one client and server. Starting one takes
about half a millisecond, and 200 downloads that start at the same time still get equal shares."""
_PAIRS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the machine a session may use."""

    carried: int
    """Connections."""
    looked_at: int
    """Connections among them that are looked at."""
    pipes: int
    """Pipes of two descriptors each, lent to connections that move many bytes."""
    descriptors: int
    """`ulimit -n`."""

    @classmethod
    def of_machine(cls, workers: int = 1) -> Limits:
        """Those of this process, if so many carry flows."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls.of(descriptors, memory, workers=workers)

    @classmethod
    def of(cls, descriptors: int, memory: int, *, workers: int = 1) -> Limits:
        """The limits for this many descriptors and this many bytes of memory in the machine.

        A connection takes two descriptors, and so does a worker: its channel, and a socket that is
        on its way. Most of the memory is left to other programs.
        """
        pipes = min(descriptors // 16, _MAX_PIPES)
        own = _OWN_DESCRIPTORS + 2 * (workers - 1)
        by_descriptors = max(1, (descriptors - own - 2 * pipes) // 2)
        share = int(memory * _MEMORY_SHARE)
        carried = min(by_descriptors, share // _CARRIED_BYTES)
        looked_at = max(1, min(carried // 2, share // _LOOKED_AT_BYTES))
        return cls(carried, looked_at, pipes, descriptors)

    def __str__(self) -> str:
        return (
            f"{self.carried} at a time, half of them of one client, and a quarter of one client to "
            f"one server (ulimit -n {self.descriptors})"
        )


@dataclass(slots=True, eq=False)
class QueuedConnection:
    """An incoming connection, and what its flow needs."""

    connection: IncomingConnection
    services: Services
    client: object
    """An address, or another value that identifies the client."""
    process: RunningProcess | None = None
    """Which one has connected, if that is known."""
    is_only_client: bool = False
    """Its source has no other client, so this one need not leave room for others."""
    keys: tuple[Key, Key, Key] = field(init=False)
    """What it is counted under: all, its client, its client and server."""
    halvings: tuple[int, int, int] = field(init=False)
    """The share of each key, as how often the limit is halved."""

    def __post_init__(self) -> None:
        server = self.connection.destination
        self.keys = (), (self.client,), (self.client, server.ip, server.port)
        self.halvings = (0, 0, 1) if self.is_only_client else (0, 1, 2)


class _Shares:
    """Counts connections: all, by client, and by client and server."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.levels: tuple[dict[Key, int], ...] = ({}, {}, {})

    def take(self, queued: QueuedConnection) -> bool:
        """Count one more, unless a share is used up; returns whether it was counted."""
        for level, key, halved in zip(self.levels, queued.keys, queued.halvings, strict=True):
            if level.get(key, 0) >= self.limit >> halved:
                return False
        for level, key in zip(self.levels, queued.keys, strict=True):
            level[key] = level.get(key, 0) + 1
        return True

    def give_back(self, queued: QueuedConnection) -> None:
        for level, key in zip(self.levels, queued.keys, strict=True):
            if count := level.pop(key) - 1:
                level[key] = count


class Crowd:
    """The connections of a session: those that wait to start, and counts of those that have."""

    def __init__(self, limits: Limits) -> None:
        self._carried = _Shares(limits.carried)
        self._looked_at = _Shares(limits.looked_at)
        self._waiting: dict[Key, deque[QueuedConnection]] = {}
        self._has_come = trio.Event()

    def enter(self, queued: QueuedConnection) -> bool:
        """Queue it; False if there is no room."""
        if not self._carried.take(queued):
            return False
        self._waiting.setdefault(queued.keys[-1], deque()).append(queued)
        self._has_come.set()
        return True

    async def next(self) -> list[QueuedConnection]:
        """Wait for connections, and return those that start now. Let them run before the next
        call."""
        await self._has_come.wait()
        at_once = _AT_ONCE if len(self._carried.levels[-1]) == 1 else 1
        starting: list[QueuedConnection] = []
        for key in list(islice(self._waiting, _PAIRS_AT_ONCE)):
            row = self._waiting.pop(key)
            starting += (row.popleft() for _ in range(min(at_once, len(row))))
            if row:
                self._waiting[key] = row  # behind the others
        if not self._waiting:
            self._has_come = trio.Event()
        return starting

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def all_waiting(self) -> Iterator[QueuedConnection]:
        """Take out all that have not started."""
        for row in self._waiting.values():
            yield from row
        self._waiting.clear()
        self._has_come = trio.Event()

    def look_at(self, queued: QueuedConnection) -> bool:
        """Whether a connection that starts is inspected."""
        return self._looked_at.take(queued)

    def leave(self, queued: QueuedConnection, *, looked_at: bool) -> None:
        """A connection that had started has ended."""
        self._carried.give_back(queued)
        if looked_at:
            self._looked_at.give_back(queued)
