"""What a sink is: a consumer of events that never makes a flow wait.

`publish` is called from the flows, between two chunks of bytes: it must not block, and what it
cannot keep it counts in `dropped`. The slow part (a terminal, a pipe, a disk) is done by `run`.
"""

from __future__ import annotations

from typing import Protocol

import trio

from mitml4.sinks.notices import Published

__all__ = ["Listener", "Sink"]


class Listener(Protocol):
    """What hears events, and has nothing to write."""

    @property
    def wants(self) -> tuple[type, ...]:
        """The classes of the events that it takes, or of their contents where they are a
        protocol's. It is given no others, and what nobody wants is not built."""

    def publish(self, event: Published) -> None:
        """Take an event. Never blocks, never raises for a slow or broken output."""


class Sink(Listener, Protocol):
    """A consumer of events."""

    @property
    def name(self) -> str:
        """What it writes to, as a user knows it."""

    @property
    def dropped(self) -> int:
        """Events that came faster than they could be written."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until `aclose` is called and all is written. Raises BrokenPipeError when the
        reader of a pipe has gone, MitmError when the output fails otherwise (a full disk)."""

    async def aclose(self) -> None:
        """No event will follow: write what is kept, then let `run` return."""
