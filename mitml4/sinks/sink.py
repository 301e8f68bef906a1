"""What a sink is: a consumer of events.

In a session it never makes a flow wait. `publish` is called from the flows, between two chunks of
bytes: it must not block, and what it cannot keep it counts in `dropped`. The slow part (a terminal,
a pipe, a disk) is done by `run`. Of a capture nothing is to be lost: there `publish` may wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mitml4.sinks.notices import Published

if TYPE_CHECKING:  # only sessions need it, and it costs `detect` a fifth of its start
    import trio

__all__ = ["CaptureSink", "Listener", "LiveSink", "Sink"]


class Listener(Protocol):
    """What hears events, and has nothing to write."""

    @property
    def wants(self) -> tuple[type, ...]:
        """The classes of the events that it takes, or of their contents where they are a
        protocol's. It is given no others, and what nobody wants is not built."""

    def publish(self, event: Published) -> None:
        """Take an event."""


class Sink(Listener, Protocol):
    """What writes, or shows, the events that it hears."""

    @property
    def name(self) -> str:
        """What it writes to, as a user knows it."""

    @property
    def dropped(self) -> int:
        """Events that came faster than they could be written."""


class LiveSink(Sink, Protocol):
    """A sink of a session. Its `publish` never blocks, nor raises for a slow or broken output."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Write until `aclose` is called and all is written. Raises BrokenPipeError when the
        reader of a pipe has gone, MitmError when the output fails otherwise (a full disk)."""

    async def aclose(self) -> None:
        """No event will follow: write what is kept, then let `run` return."""


class CaptureSink(Sink, Protocol):
    """A sink of captures. Its methods write at once, and raise OSError."""

    def flush(self) -> None:
        """Write what can be written now: the next packet may be long in coming."""

    def finish(self) -> None:
        """No event will follow: write what is kept."""
