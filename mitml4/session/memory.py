"""What is bounded for a whole session, and divided between the processes that carry its flows."""

from __future__ import annotations

from typing import Final

from mitml4.dataclass import dataclass
from mitml4.edit.memory import EditMemory
from mitml4.layers.relay import Relay
from mitml4.net.splice import PipePool
from mitml4.protocols.payload import Shown

__all__ = ["MemoryShare", "SharedMemory"]

_BODIES_AT_ONCE: Final = 16
"""So many bodies of the largest size may be held back at a time."""


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """The part that a process has."""

    bodies: int
    """Bytes of edited bodies."""
    payload: tuple[int, int] | None
    """Bytes of payload that may be shown, and bytes of memory for it; None: none is shown."""
    pipes: int


class SharedMemory:
    """The part of this process; at first, that is all."""

    def __init__(self, *, edit_limit: int, pipes: int, shown: Shown) -> None:
        """`edit_limit`: the bytes of the largest body that can be edited."""
        self._edit_limit = edit_limit
        self._pipes = pipes
        self._payload = shown.payload and shown.payload.session
        self.relay = Relay(PipePool(pipes))
        self.bodies = EditMemory(_BODIES_AT_ONCE * edit_limit)

    def divide(self, count: int) -> MemoryShare:
        """Keep one of `count` equal parts, which each of the others has too."""
        payload = self._payload
        share = MemoryShare(
            bodies=max(self._edit_limit, self.bodies.free // count),
            payload=(payload.left // count, payload.free // count) if payload else None,
            pipes=self._pipes // count,
        )
        self.take(share)
        return share

    def take(self, share: MemoryShare) -> None:
        """Use no more than this."""
        self.bodies.free = share.bodies
        self.relay.pipes.most = share.pipes
        if share.payload and self._payload:
            self._payload.left, self._payload.free = share.payload

    def close(self) -> None:
        """No flow is open any more."""
        self.relay.pipes.close()
