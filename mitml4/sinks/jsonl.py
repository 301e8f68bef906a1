"""JSON lines: every event as it comes, one a line, to standard output or a file."""

from __future__ import annotations

import sys
from pathlib import Path

from mitml4.errors import MitmError
from mitml4.events import VITAL, Event, encode, weight
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.sinks.background import CAPACITY, BackgroundWriter
from mitml4.sinks.files import open_file, write_parts
from mitml4.sinks.notices import Published

__all__ = ["JsonLines"]


class JsonLines(BackgroundWriter[Event]):
    """A sink that writes JSON lines."""

    wants = (Event, ProtocolEvent)

    def __init__(
        self,
        descriptor: int,
        name: str,
        *,
        close: bool = True,
        capacity: int = CAPACITY,
        headers: bool = True,
    ) -> None:
        """`headers`: whether the headers of HTTP are written, where an event has them."""
        super().__init__(descriptor, name, close=close, capacity=capacity)
        self._headers = headers

    @classmethod
    def to_stdout(cls, *, headers: bool = True) -> JsonLines:
        """Raises MitmError where whoever started us has closed it."""
        if sys.stdout is None:
            raise MitmError("standard output is closed", hint="the events go there, as in: … | jq")
        return cls(sys.stdout.fileno(), "standard output", close=False, headers=headers)

    @classmethod
    def to_stderr(cls, *, headers: bool = True) -> JsonLines:
        return cls(sys.stderr.fileno(), "standard error", close=False, headers=headers)

    @classmethod
    def to_file(cls, path: Path, *, headers: bool = True) -> JsonLines:
        """Into a file, over what was in it. Raises MitmError."""
        return cls(open_file(path), str(path), headers=headers)

    def publish(self, event: Published) -> None:
        assert isinstance(event, Event)  # it wants nothing else
        self.put(event, getattr(event, "flow", 0), weight(event), is_vital=isinstance(event, VITAL))

    def write(self, batch: list[Event]) -> None:
        lines = (f"{encode(event, headers=self._headers)}\n" for event in batch)
        write_parts(self.descriptor, [line.encode("utf-8", "backslashreplace") for line in lines])
