"""Protocols other than HTTP with editing: the bytes of each direction."""

from __future__ import annotations

from typing import Literal

import trio

from mitml4.edit.editor import DataEditor
from mitml4.edit.messages import Ending
from mitml4.layers.editing.ending import end, sleep
from mitml4.layers.editing.flow import FlowEditing, Origin
from mitml4.layers.editing.reader import Reader, end_below, pass_end, send
from mitml4.net.memory import MemoryStream
from mitml4.protocols.context import LayerContext
from mitml4.tasks import both

__all__ = ["DataEditing"]


class DataEditing:
    """Both directions of a layer, until another one begins inside it."""

    def __init__(
        self, far: MemoryStream, origin: Origin, editing: FlowEditing, context: LayerContext
    ) -> None:
        self._far = far
        self._client = Reader(far)
        self._origin = origin
        self._editing = editing
        self._context = context
        self._is_over = False

    def stop(self) -> None:
        """Another layer begins: from now on, bytes move as they are."""
        self._is_over = True

    async def run(self) -> None:
        """Move everything to the ends. Raises OSError."""
        client, server = self._client, Reader(await self._origin.get())

        async def up() -> None:
            await self._move("up", client, server)

        async def down() -> None:
            await self._move("down", server, client)

        await both(up, down)

    async def _move(self, direction: Literal["up", "down"], source: Reader, sink: Reader) -> None:
        editor: DataEditor | None = None
        was_asked = False
        while True:
            holds = editor is not None and editor.holds
            has_more: bool | None = None
            with trio.move_on_after(self._editing.hold_s if holds else float("inf")):
                has_more = await source.more()
            if not was_asked:
                was_asked = True
                flow = self._editing.known(self._context, *self._editing.found(self._context))
                editor = self._editing.editor().data(flow, direction)
            data = source.take()
            if editor:
                fed = await editor.feed(data) if data else b""
                if isinstance(fed, Ending):
                    await end(fed, self._client, self._far)
                    return
                data = fed
                if self._is_over or not has_more:  # the end, or nothing has followed
                    data += await editor.flush()
                if data:
                    await sleep(editor.delay_s)
                await send(sink.stream, data, editor.rate)
                if self._is_over:
                    editor = None
            else:
                await send(sink.stream, data)
            if has_more is False:
                await pass_end(source, sink.stream)
                await end_below(source, sink.stream)
                return
