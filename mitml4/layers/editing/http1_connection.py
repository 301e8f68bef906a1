"""A connection of HTTP/1 with editing, beside its exchanges: its heads and bodies, and how it
ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mitml4.edit.http1 import (
    BodyReader,
    RequestHead,
    ResponseHead,
    head_length,
)
from mitml4.edit.messages import Request, Response
from mitml4.errors import ProtocolError
from mitml4.layers.editing.flow import FlowEditing, Origin
from mitml4.layers.editing.reader import Reader, end_below, pass_end, relay, send
from mitml4.net.memory import MemoryStream
from mitml4.protocols.context import LayerContext
from mitml4.protocols.http.http1_heads import REQUEST_LINE
from mitml4.tasks import both, first_of

__all__ = ["Http1Connection", "Unreadable", "feed"]


class Unreadable(Exception):  # noqa: N818 - the rest is moved as it is
    """What comes cannot be read as HTTP/1. The bytes are still in the readers, or in `raw`."""

    def __init__(self, raw: bytes = b"") -> None:
        super().__init__()
        self.raw = raw


class Http1Connection:
    """The connection of one client. For subclassing."""

    def __init__(
        self, far: MemoryStream, origin: Origin, editing: FlowEditing, context: LayerContext
    ) -> None:
        self._client = Reader(far)
        self._far = far
        self._origin = origin
        self._editing = editing
        self._context = context
        self._server: Reader | None = None
        """The origin's, once it is connected."""
        self._owed: tuple[BodyReader, Reader] | None = None
        """A body that may still come though its request was answered (RFC 9110 §10.1.1)."""
        self._held = 0
        """Bytes of the session's memory."""
        self._has_ended_upwards = False
        """Whether the origin was told that the client has ended."""
        if origin.stream:
            self._server = Reader(origin.stream)

    def _give_back(self) -> None:
        """Nothing is held back any more."""
        self._editing.memory.give_back(self._held)
        self._held = 0

    async def _next_head(self) -> bytes:
        """The next head; empty once the connection has ended. Raises Unreadable."""
        client = self._client
        if self._owed:
            await self._send_owed(*self._owed)
            self._owed = None
        while True:
            try:
                if length := head_length(client.data):
                    return client.take(length)
            except ProtocolError:
                raise Unreadable from None
            if client.has_ended:
                if client.data:
                    raise Unreadable
                await self._end_of_client()
                return b""
            if self._server:
                await first_of(client.more, self._server.more)
                if self._server.data:
                    raise Unreadable
                if self._server.has_ended:
                    await self._end_of_server()
                    return b""
            else:
                await client.more()

    async def _send_owed(self, body: BodyReader, server: Reader) -> None:
        client = self._client
        while not client.data and await client.more():
            pass
        if not REQUEST_LINE.match(client.data):
            await self._pump(body, server, None)

    async def _end_of_client(self) -> None:
        if self._server:
            server = self._server
            await self._end_upwards(server)
            await both(
                partial(end_below, self._client, server.stream), partial(relay, server, self._far)
            )
        else:
            self._far.close()

    async def _end_of_server(self) -> None:
        assert self._server
        server = self._server
        await pass_end(server, self._far)
        await both(
            partial(end_below, server, self._far), partial(relay, self._client, server.stream)
        )

    async def _connect(self) -> Reader:
        if self._server is None:
            self._server = Reader(await self._origin.get())
        return self._server

    async def _relay_rest(self, server: Reader, raw: bytes = b"") -> None:
        """Move both directions as they are. `raw` is the client's, before what is unread."""
        self._client.data[:0] = raw

        async def up() -> None:
            await relay(self._client, server.stream)

        async def down() -> None:
            await relay(server, self._far)

        await both(up, down)

    async def _end_upwards(self, server: Reader) -> None:
        if not self._has_ended_upwards:
            self._has_ended_upwards = True
            await pass_end(self._client, server.stream)

    async def _hand_over(
        self,
        head: RequestHead | ResponseHead,
        message: Request | Response,
        body: BodyReader,
        source: Reader,
        number: int,
    ) -> bytes:
        """Hold back a body until it is complete, and give it to the message. Returns it as it came,
        as far as it came. Raises Unreadable."""
        raw, content = bytearray(), []
        while True:
            try:
                taken, pieces = feed(body, source)
            except Unreadable:
                source.data[:0] = raw
                raise
            raw += source.take(taken)
            content += pieces
            is_above = len(raw) > self._editing.limit or not self._editing.memory.take(taken)
            if not is_above:
                self._held += taken
            if body.is_done or is_above:
                break
            if not await source.more():
                body.end()
                break
        depth = self._context.depth
        if is_above:
            self._editing.unedited(depth, number, self._editing.too_large(len(raw)))
        elif not body.is_done:
            self._editing.unedited(depth, number, "a body that was cut off")
        elif not head.hand_over(message, b"".join(content), self._editing.limit):
            self._editing.unedited(depth, number, "a body whose coding cannot be undone")
        return bytes(raw)

    async def _pump(
        self,
        body: BodyReader,
        server: Reader,
        rate: float | None,
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        """Move a request body as it comes. A server that takes no more may still have answered."""
        client = self._client
        takes = True
        while not body.is_done:
            taken, _ = feed(body, client)
            if taken:
                on_sent()
            data = client.take(taken)
            if takes and data:
                try:
                    await send(server.stream, data, rate)
                except OSError:
                    takes = False
            if not body.is_done and not await client.more():
                await server.stream.send_eof()
                return


def feed(body: BodyReader, source: Reader) -> tuple[int, list[bytes]]:
    """Raises Unreadable."""
    try:
        taken, pieces = body.feed(source.data)
    except ProtocolError:
        raise Unreadable from None
    return taken, list(pieces)
