"""JSON lines: one event a line, to standard output or a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mitml4.dataclass import dataclass
from mitml4.encoding import encode
from mitml4.errors import MitmError
from mitml4.events import VITAL, Event, LayerEvent, weight
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.sinks.files import OutputFile, open_file
from mitml4.sinks.format import Format, Weight
from mitml4.sinks.updates import Published, Update

__all__ = ["JsonLines", "Line", "line_of"]


@dataclass(frozen=True, slots=True)
class Line(Update):
    """The line of a protocol's event that another process has made."""

    flow: int
    weight: int
    data: bytes


class JsonLines(Format[Event | Line]):
    """One line for each event."""

    wants = (Event, ProtocolEvent, Line)

    def __init__(self, file: OutputFile, *, headers: bool = True) -> None:
        """`headers`: whether HTTP headers are written, if an event has them."""
        super().__init__(file)
        self._headers = headers

    @classmethod
    def to_stdout(cls, *, headers: bool = True) -> JsonLines:
        """Raises MitmError if the caller of mitml4 has closed it."""
        if sys.stdout is None:
            raise MitmError("standard output is closed", hint="the events go there, as in: … | jq")
        file = OutputFile(sys.stdout.fileno(), "standard output", is_ours=False)
        return cls(file, headers=headers)

    @classmethod
    def to_stderr(cls, *, headers: bool = True) -> JsonLines:
        return cls(
            OutputFile(sys.stderr.fileno(), "standard error", is_ours=False), headers=headers
        )

    @classmethod
    def to_file(cls, path: Path, *, headers: bool = True) -> JsonLines:
        """To a file, replacing its content. Raises MitmError."""
        return cls(OutputFile(open_file(path), str(path)), headers=headers)

    def take(self, event: Published) -> Iterable[Event | Line]:
        return (event,)  # type: ignore[return-value]  # it wants nothing else

    def weight(self, item: Event | Line) -> Weight:
        if isinstance(item, (LayerEvent, Line)):  # most are
            return item.flow, item.weight, False
        return getattr(item, "flow", 0), weight(item), type(item) in VITAL

    def write(self, batch: Sequence[Event | Line]) -> None:
        self.file.write(
            [
                item.data if isinstance(item, Line) else line_of(item, headers=self._headers)
                for item in batch
            ]
        )


def line_of(event: Event, *, headers: bool = True) -> bytes:
    """The line of an event, with its end."""
    return f"{encode(event, headers=headers)}\n".encode("utf-8", "backslashreplace")
