"""A small HTTP server in place of a flow's server: it answers GET and HEAD with what was prepared.

    client ⇄ Follower (events) ⇄ near │ far ⇄ this server

It opens no file and reads nothing but the method and the path of a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from typing import Final, TypeAlias

import h11
import trio

from mitml4.dataclass import dataclass
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.editing.reader import Reader
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.protocols.context import LayerContext
from mitml4.tasks import first_of

__all__ = ["AnswerByPages", "Page", "Pages"]

_IDLE_S: Final = 60.0
"""How long a request may take to come."""
_LINGER_S: Final = 2.0
"""How long the client may take to end its side after the last response."""
_MAX_HEAD_BYTES: Final = 16384
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A response body and its headers."""

    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


Pages: TypeAlias = Mapping[bytes, Page]
"""By path."""


@dataclass(frozen=True, slots=True)
class AnswerByPages:
    """Answers a whole flow. The bridge's server side is not used."""

    pages: Pages

    async def run(self, bridge: Bridge, context: LayerContext) -> None:
        """Raises OSError when the client breaks, and Blocked."""
        near, far = memory_pair()
        follower = Follower(bridge.through(near), context, "answered")
        await first_of(follower.detect, partial(self.serve, far))

    async def serve(self, far: MemoryStream) -> None:
        """Answer what comes on a connection in memory. Does not return before its end is taken."""
        try:
            await self._answer_all(far)
        except (OSError, trio.ClosedResourceError):
            far.abort()
            return
        with trio.move_on_after(_LINGER_S):
            await far.send_eof()
            rest = Reader(far)
            while await rest.more():
                rest.take()
            await trio.sleep_forever()  # the client gets the end

    async def _answer_all(self, far: MemoryStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        reader = Reader(far)
        with trio.CancelScope() as idle:
            while True:
                idle.deadline = trio.current_time() + _IDLE_S
                try:
                    request = await _next_request(connection, reader)
                except h11.RemoteProtocolError:
                    if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                        await _send(connection, far, 400, _text("Bad request"))
                    return
                if request is None:
                    return
                await self._answer(connection, far, request)
                with suppress(h11.RemoteProtocolError):
                    connection.next_event()  # the end of a request, if it has no body
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    return  # there is a body that nobody reads, or the last one was answered
                connection.start_next_cycle()

    async def _answer(
        self, connection: h11.Connection, far: MemoryStream, request: h11.Request
    ) -> None:
        if request.method not in (b"GET", b"HEAD"):
            refusal = _text("Method not allowed", ("Allow", "GET, HEAD"))
            await _send(connection, far, 405, refusal)
            return
        page = self.pages.get(request.target.partition(b"?")[0])
        status, page = (200, page) if page else (404, _text("Not found"))
        await _send(connection, far, status, page, is_head=request.method == b"HEAD")


async def _next_request(connection: h11.Connection, reader: Reader) -> h11.Request | None:
    """None: the client has ended. Raises RemoteProtocolError, OSError."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        await reader.more()
        connection.receive_data(reader.take())


async def _send(
    connection: h11.Connection, far: MemoryStream, status: int, page: Page, *, is_head: bool = False
) -> None:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", page.content_type),
        ("Content-Length", str(len(page.body))),
        *_HEADERS,
        *page.headers,
    ]
    data = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    if not is_head:
        data += connection.send(h11.Data(data=page.body)) or b""
    data += connection.send(h11.EndOfMessage()) or b""
    await far.send_all(memoryview(data))


def _text(message: str, *headers: tuple[str, str]) -> Page:
    body = f"{message}\n".encode()
    return Page(content_type="text/plain; charset=utf-8", body=body, headers=headers)
