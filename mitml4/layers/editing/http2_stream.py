"""A stream of HTTP/2 whose content goes through a task: to another server, or as messages."""

from __future__ import annotations

import trio

from mitml4.dataclass import dataclass
from mitml4.edit.editor import EditedFlow, Editor
from mitml4.edit.http2.core import Http2Core
from mitml4.edit.http2.state import Stream
from mitml4.layers.editing.flow import FlowEditing

__all__ = ["StreamEditing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEditing:
    """The stream, and what its task needs of the connection."""

    core: Http2Core
    changed: trio.lowlevel.ParkingLot
    """Wakes what waits for the state of the core."""
    stream: Stream
    editor: Editor
    flow: EditedFlow
    editing: FlowEditing
    depth: int

    def unedited(self, reason: str) -> None:
        """Say why something of the stream was not edited."""
        self.editing.unedited(self.depth, self.stream.number, reason)
