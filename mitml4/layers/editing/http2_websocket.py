"""A WebSocket in a stream of HTTP/2 (RFC 8441), with editing."""

from __future__ import annotations

from mitml4.edit.http2.state import Stream
from mitml4.edit.websocket import MessageEdit, TooLargeError
from mitml4.layers.editing.http2_stream import StreamEditing
from mitml4.layers.editing.websocket import say_unedited
from mitml4.payload.deflate import negotiated
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.http2_wire import ErrorCode

__all__ = ["StreamMessages", "asks_for_socket"]


def asks_for_socket(stream: Stream) -> bool:
    """Whether the request of a stream is an extended CONNECT for a WebSocket (RFC 8441 §4)."""
    head = stream.up.head
    return head is not None and dict(head.headers).get(b":protocol", b"").lower() == b"websocket"


class StreamMessages:
    """Edits the messages of one stream, once the server has accepted it."""

    def __init__(self, on: StreamEditing) -> None:
        assert on.stream.request
        assert on.stream.response
        self._on = on
        self._core = on.core
        self._changed = on.changed
        self._stream = on.stream
        self._request = on.stream.request
        extensions = ",".join(on.stream.response.headers.get_all("sec-websocket-extensions"))
        self._deflate = negotiated(extensions.encode("latin-1"))

    async def run(self, direction: Direction) -> None:
        """Move the messages of a direction to its end."""
        core, stream = self._core, self._stream
        edit = MessageEdit(direction, self._deflate, self._on.editing.limit)
        while not core.has_ended(stream, direction):
            if not core.has_content(stream, direction) or core.is_full(stream, direction):
                await self._changed.park()
                continue
            try:
                goes_on = await self._move(edit, direction)
            except TooLargeError:
                goes_on = False
            if not goes_on:
                core.reset(stream, ErrorCode.CANCEL)
            say_unedited(edit, self._on.editing, self._on.depth, stream.number)
            self._changed.unpark_all()
        core.end_content(stream, direction)
        self._changed.unpark_all()

    async def _move(self, edit: MessageEdit, direction: Direction) -> bool:
        """Move what has come. Returns whether it goes on. Raises TooLargeError."""
        for item in edit.receive(self._core.take_content(self._stream, direction)):
            if not isinstance(item, bytes):
                if await self._on.editor.message(self._on.flow, self._request, item.message):
                    return False
                item = edit.encode(item)
            self._core.send_content(self._stream, direction, item)
            self._changed.unpark_all()
        return True
