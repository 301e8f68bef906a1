"""The interface of sinks, the consumers of events.

In a session it never makes a flow wait. `publish` is called from the flows, between two chunks of
bytes: it must not block, and counts in `dropped` what it cannot keep. The slow part (a terminal, a
pipe, a disk) is done by `run`. For a capture nothing may be dropped, so there `publish` may block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mitml4.sinks.updates import Published

if TYPE_CHECKING:  # only sessions need it, and it costs `detect` a fifth of its start
    import trio

__all__ = ["CaptureSink", "EventListener", "LiveSink", "Sink"]


class EventListener(Protocol):
    """A consumer of events that writes nothing."""

    @property
    def wants(self) -> tuple[type, ...]:
        """The classes of events that it takes, or of the contents of protocols' events. It is given
        no others, and events that nobody wants need not be built."""

    def publish(self, event: Published) -> None:
        """Take an event."""


class Sink(EventListener, Protocol):
    """A consumer of events that writes or shows them."""

    @property
    def name(self) -> str:
        """The name of its file or device, for the user."""

    @property
    def dropped(self) -> int:
        """Events that came faster than they could be written."""


class LiveSink(Sink, Protocol):
    """A sink of a session. Its `publish` never blocks, nor raises for a slow or broken output."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Write until `aclose` has been called and everything is written. Raises BrokenPipeError if
        the reader of a pipe has gone, MitmError for other errors (a full disk)."""

    async def aclose(self) -> None:
        """No event will follow: write what is queued, then let `run` return."""


class CaptureSink(Sink, Protocol):
    """A sink of captures. Its methods write at once, and raise OSError."""

    def flush(self) -> None:
        """Write what is complete, since the next packet may come much later."""

    def finish(self) -> None:
        """No event will follow: write everything."""
