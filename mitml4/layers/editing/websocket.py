"""A WebSocket with editing, after its 101."""

from __future__ import annotations

from mitml4.edit.editor import EditedFlow, Editor
from mitml4.edit.messages import Request
from mitml4.edit.websocket import MessageEdit, TooLargeError
from mitml4.layers.editing.ending import end
from mitml4.layers.editing.flow import FlowEditing
from mitml4.layers.editing.reader import Reader, end_below, pass_end
from mitml4.net.memory import MemoryStream
from mitml4.payload.deflate import negotiated
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction
from mitml4.tasks import both

__all__ = ["edit_messages", "say_unedited"]


async def edit_messages(
    client: Reader,
    server: Reader,
    far: MemoryStream,
    editor: Editor,
    flow: EditedFlow,
    request: Request,
    extensions: str,
    editing: FlowEditing,
    context: LayerContext,
) -> None:
    """Move the messages of both directions to their ends. `extensions`: of the response. Raises
    OSError."""
    deflate = negotiated(extensions.encode("latin-1"))

    async def move(direction: Direction, source: Reader, sink: Reader) -> None:
        edit = MessageEdit(direction, deflate, editing.limit)
        while True:
            for item in edit.receive(source.take()):
                if not isinstance(item, bytes):
                    ending = await editor.message(flow, request, item.message)
                    if ending:
                        await end(ending, client, far)
                        return
                    item = edit.encode(item)
                await sink.stream.send_all(memoryview(item))
            say_unedited(edit, editing, context.depth, request.stream)
            if not await source.more():
                await pass_end(source, sink.stream)
                await end_below(source, sink.stream)
                return

    async def up() -> None:
        await move(Direction.UP, client, server)

    async def down() -> None:
        await move(Direction.DOWN, server, client)

    try:
        await both(up, down)
    except TooLargeError:
        far.abort()


def say_unedited(edit: MessageEdit, editing: FlowEditing, depth: int, stream: int) -> None:
    """Say what has passed as it came, if anything has."""
    if edit.has_large:
        editing.unedited(depth, stream, f"a message above {editing.limit} bytes")
    elif edit.is_broken:
        editing.unedited(depth, stream, "messages that cannot be read")
