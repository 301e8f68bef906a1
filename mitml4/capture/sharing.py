"""A capture whose flows are shared among processes, each of which reads all packets.

What a process tells of its flows does not depend on the flows of the others, so that put together
in the order of the packets it is what one process tells of all. That holds since the time of the
capture passes with every packet (agenda.py), and since what flows say of others is not used here:
names are looked up where all is put together, and where a flow announces another one, or the
flows are so many that memory is short, the process says so (`depends_from`). From there on it
would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from math import inf
from typing import Final, TypeAlias
from zlib import crc32

from mitml4.capture.agenda import Due
from mitml4.capture.known import Known
from mitml4.protocols.datagram import Resolved
from mitml4.protocols.expected import Announcement, Expectations

__all__ = ["Order", "Part", "Share"]

Order: TypeAlias = tuple[float] | tuple[float, float, int]
"""Where in a capture something is told: at a place, which numbers the steps of all packets, or
before it, where the time of the packet has shown that flows are due: when, and which of them."""

_STEPS: Final = 256
"""No packet has as many: one for each carrier of a tunnel."""
_MAX_FOREIGN: Final = 1 << 17
"""Keys that are remembered; of others it is computed again whose they are."""


class Share:
    """The flows of a capture that a process follows: all of them."""

    count = 1
    """How many processes there are."""

    def __init__(self) -> None:
        self.foreign: set[bytes] = set()
        """Keys of flows that others follow."""
        self.numbers: Iterator[int] = count(1)
        """The numbers of the flows that open."""
        self.known = Known()
        self.order: Order = (0,)
        """Where the reports stand that are given now."""

    def step_to(self, packet: int) -> None:
        """What comes now is the next segment or datagram of this packet."""

    def step_to_due(self, packet: int, due: Due) -> None:
        """What comes now was due before this packet."""

    def step_to_end(self, kind: int, number: int) -> None:
        """What comes now ends with the capture."""

    def is_foreign(self, _key: bytes) -> bool:
        """Whether another process follows the flow with this key."""
        return False

    def depend(self) -> None:
        """From here on, what is told may depend on flows of others."""


class Part(Share):
    """One of `count` parts. The number of a flow says which packet has opened it, and so is
    the same in all processes."""

    def __init__(self, index: int, count: int) -> None:
        super().__init__()
        self.count = count
        self._index = index
        self._place = 0
        self.numbers = self._places()
        self.names: list[tuple[Order, str, Resolved]] = []
        """Which client was told what, since this was emptied last."""
        self.known = _KnownElsewhere(self)
        self.depends_from: Order | None = None

    def step_to(self, packet: int) -> None:
        place = packet * _STEPS
        self._place = self._place + 1 if self._place > place else place + 1
        self.order = (self._place,)

    def step_to_due(self, packet: int, due: Due) -> None:
        self.order = (packet * _STEPS, *due)

    def step_to_end(self, kind: int, number: int) -> None:
        self.order = (inf, kind, number)

    def is_foreign(self, key: bytes) -> bool:
        if key in self.foreign:
            return True
        if crc32(_both_ways(key)) % self.count == self._index:
            return False
        if len(self.foreign) >= _MAX_FOREIGN:
            self.foreign.clear()
        self.foreign.add(key)
        return True

    def depend(self) -> None:
        self.depends_from = self.depends_from or self.order

    def _places(self) -> Iterator[int]:
        while True:
            yield self._place


def _both_ways(key: bytes) -> bytes:
    """The same for both directions."""
    width = (len(key) - 4) // 2
    source, destination = key[:width] + key[-4:-2], key[width:-4] + key[-2:]
    return min(source + destination, destination + source)


class _KnownElsewhere(Known):
    """What flows of a part have said of others: it is used where the parts are put together."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part
        self.expectations = _NoExpectations(part)

    def add_name(self, client: str, resolved: Resolved) -> None:
        self._part.names.append((self._part.order, client, resolved))

    def name_of(self, client: str, ip: str) -> str | None:
        return None


class _NoExpectations(Expectations):
    """A part cannot know which of the flows that open were announced."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self._part = part

    def add(self, announcement: Announcement, client: str, server: str, now_s: float) -> None:
        self._part.depend()
