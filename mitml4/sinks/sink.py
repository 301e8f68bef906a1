"""What a sink is: a consumer of events that never makes a flow wait.

`publish` is called from the flows, between two chunks of bytes: it must not block, and what it
cannot keep it counts in `dropped`. The slow part (a terminal, a pipe, a disk) is done by `run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import trio

from mitml4.events import Event

__all__ = ["Counters", "Sink"]


@dataclass(slots=True)
class Counters:
    """Bytes that a flow has moved so far, for displays that look between two events."""

    up: int = 0
    down: int = 0


class Sink(Protocol):
    """A consumer of events."""

    dropped: int
    """Events that came faster than they could be written."""

    @property
    def wants(self) -> tuple[type, ...]:
        """The classes whose events it takes. It is given no others, and what no sink wants is not
        built."""

    def publish(self, event: Event) -> None:
        """Take an event. Never blocks, never raises for a slow or broken output."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until `aclose` is called and all is written. Raises BrokenPipeError when the
        reader of a pipe has gone, MitmError when the output fails otherwise (a full disk)."""

    async def aclose(self) -> None:
        """No event will follow: write what is kept, then let `run` return."""
