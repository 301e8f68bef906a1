"""HTTP/1 with editing: one exchange after the other.

A request is read, the editor is asked, and it is sent to its server, or to another; then its
response goes the same way back. What was not changed is sent as it came. Bodies that the editor
does not want are moved as they come, in both directions at the same time.

What cannot be read is not edited: from there on, both directions are moved as they are. Of another
server, which a rule or a script names, only a response is passed on.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import field
from functools import partial
from typing import Final, TypeAlias

import trio

from mitml4.dataclass import dataclass
from mitml4.edit.editor import EditedFlow, Editor
from mitml4.edit.headers import Headers
from mitml4.edit.http1 import (
    BodyReader,
    RequestHead,
    ResponseHead,
    head_length,
    read_request,
    read_response,
    response_bytes,
)
from mitml4.edit.messages import Ending, Request, Response, is_unread, plain_answer
from mitml4.errors import ProtocolError
from mitml4.layers.editing.ending import end, sleep
from mitml4.layers.editing.http1_connection import Http1Connection, Unreadable, feed
from mitml4.layers.editing.reader import Reader, send, send_message
from mitml4.layers.editing.websocket import edit_messages
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.http.exchange import UPGRADES
from mitml4.protocols.http.http1_heads import Part
from mitml4.protocols.http.websocket import WebSocket
from mitml4.tasks import both, first_of

__all__ = ["Http1Editing"]

_Then: TypeAlias = Callable[[], Awaitable[None]]
"""How a connection goes on after its last exchange."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True, kw_only=True)
class _Exchange:
    head: RequestHead
    request: Request
    body: BodyReader
    """Of the request."""
    editor: Editor
    flow: EditedFlow
    expects_continue: bool
    """Whether the request has `Expect: 100-continue`."""
    gave_continue: bool = False
    """Whether the client was told to send the body."""
    server: Reader = field(init=False)
    has_sent_body: bool = False
    has_answered: bool = False
    """Whether the client has got a part of the response."""

    @property
    def may_wait(self) -> bool:
        """Whether the client may wait with its body until it is told to send it."""
        return self.expects_continue and not self.gave_continue and not self.has_sent_body


class Http1Editing(Http1Connection):
    """The connection of one client."""

    async def run(self) -> None:
        """Serve the client to its end. Raises OSError."""
        number = 0
        try:
            while raw := await self._next_head():
                number += 1
                goes_on = await self._serve(raw, number)
                self._give_back()
                if not goes_on:
                    return
        except Unreadable as unreadable:
            self._give_back()
            await self._relay_rest(self._server or await self._connect(), unreadable.raw)
        finally:
            self._give_back()

    async def _serve(self, raw: bytes, number: int) -> bool:
        """Serve one request. Returns whether another may follow. Raises Unreadable."""
        exchange = self._begin(raw, number)
        request = exchange.request
        raw_body = await self._hold(exchange, raw)
        original = Headers(request.headers.fields)
        request.streams = not exchange.body.is_done or is_unread(request, raw_body)
        answer = await exchange.editor.request(exchange.flow, request)
        await sleep(request.delay_s)
        if isinstance(answer, Ending):
            await end(answer, self._client, self._far)
            return False
        if answer:
            return await self._answer(exchange, original, answer)
        return await self._forward(exchange, raw_body)

    def _begin(self, raw: bytes, number: int) -> _Exchange:
        """Read the head of a request. Raises Unreadable."""
        scheme = "https" if self._context.secure else "http"
        authority = str(self._context.target) if self._context.target else ""
        try:
            head, request = read_request(raw, scheme=scheme, authority=authority, stream=number)
        except ProtocolError:
            raise Unreadable(raw) from None
        expected = request.headers.get("expect") or ""
        return _Exchange(
            head=head,
            request=request,
            body=BodyReader(head.part, head.length),
            editor=self._editing.editor(),
            flow=self._editing.known(self._context, "http/1"),
            expects_continue=expected.lower() == "100-continue",
        )

    async def _hold(self, exchange: _Exchange, raw: bytes) -> bytes:
        """Hand over a request's body that the editor wants. Returns it as it came. Raises
        Unreadable with `raw`, the head."""
        request, body = exchange.request, exchange.body
        wants = not body.is_done and exchange.editor.wants_body(exchange.flow, request, None)
        if not (wants and self._has_end(request, request.stream)):
            return b""
        if exchange.expects_continue and not self._client.data:
            exchange.gave_continue = True
            await send(self._far, _CONTINUE)
        try:
            return await self._hand_over(exchange.head, request, body, self._client, request.stream)
        except Unreadable:
            raise Unreadable(raw) from None

    async def _answer(self, exchange: _Exchange, original: Headers, answer: Response) -> bool:
        """Answer a request instead of the server. Returns whether another may follow. `original`:
        the headers of the request before it was edited."""
        request, body = exchange.request, exchange.body
        waits = exchange.may_wait and not self._client.data
        closes = waits or _is_last(original, request.version)
        while not body.is_done and not waits:
            taken, _ = feed(body, self._client)
            self._client.take(taken)
            if not body.is_done and not await self._client.more():
                closes = True
                break
        await send(self._far, response_bytes(answer, request.method, closes=closes), answer.rate)
        if closes:
            await end(Ending.CLOSE, self._client, self._far)
        return not closes

    async def _forward(self, exchange: _Exchange, raw_body: bytes) -> bool:
        """Send a request to its server, and the response back. Returns whether another may
        follow."""
        try:
            return await self._exchange(exchange, raw_body)
        except OSError as error:
            if not exchange.request.server or exchange.has_answered:
                raise
            return await self._fail(exchange, exchange.request.server.authority, error)

    async def _exchange(self, exchange: _Exchange, raw_body: bytes) -> bool:
        """Returns whether another request may follow. Raises OSError."""
        head, request = exchange.head, exchange.request
        exchange.server = server = await self._server_of(request)
        try:
            if head.body_changed(request):
                raw_body = head.framed(request, bytes(exchange.body.trailer))
            try:
                if not request.rate:
                    raw_body += self._what_came_of(exchange.body)
            finally:  # what cannot be read follows as it is
                exchange.has_sent_body = bool(raw_body)
                with suppress(OSError):  # a server that takes no more may have answered
                    await send_message(
                        server.stream, head.bytes_of(request), raw_body, request.rate
                    )
            return await self._both_ways(exchange)
        finally:
            if request.server:
                server.stream.close()

    def _what_came_of(self, body: BodyReader) -> bytes:
        """The part of a request's body that has come with its head."""
        taken, _ = feed(body, self._client)
        return self._client.take(taken)

    async def _server_of(self, request: Request) -> Reader:
        """Raises OSError."""
        if (server := request.server) is None:
            return await self._connect()
        reader = Reader(await self._editing.connect(server))
        request.target = server.prefix + request.path
        request.headers["Host"] = server.authority
        return reader

    async def _fail(self, exchange: _Exchange, authority: str, error: OSError) -> bool:
        """Tell the client what was wrong with another server."""
        answer = plain_answer(502, f"{authority}: {error.strerror or error}")
        return await self._answer(exchange, exchange.request.headers, answer)

    async def _both_ways(self, exchange: _Exchange) -> bool:
        """Move the rest of the request, and the response at the same time. Returns whether another
        request may follow."""
        if exchange.body.is_done:
            then = await first_of(partial(self._receive, exchange), self._watch_client)
        else:
            then = await self._receive_beside_body(exchange)
        if then:
            await then()
        return then is None

    async def _watch_client(self) -> None:
        """While the client waits for a response, its end is the server's to know."""
        client = self._client
        while len(client.data) <= MAX_PEEK and await client.more():
            pass
        if client.has_ended and not client.data and self._server:
            await self._end_upwards(self._server)
        await trio.sleep_forever()

    async def _receive_beside_body(self, exchange: _Exchange) -> _Then | None:
        sending = trio.CancelScope()

        def sent() -> None:
            exchange.has_sent_body = True

        async def send_body() -> None:
            with sending:
                await self._pump(exchange.body, exchange.server, exchange.request.rate, sent)

        async def receive() -> _Then | None:
            then = await self._receive(exchange)
            if then or not exchange.has_sent_body:
                sending.cancel()
                if not then:  # the client may never send the body
                    self._owed = exchange.body, exchange.server
            return then

        then, _ = await both(receive, send_body)
        return then

    async def _receive(self, exchange: _Exchange) -> _Then | None:
        """Read the response, and send it to the client. Returns how the connection goes on; None:
        with another request."""
        server, request = exchange.server, exchange.request
        while True:
            length = await self._response_head(server)
            if not length:
                return self._without_response(exchange)
            raw = server.take(length)
            try:
                head, response = read_response(raw, request.method)
            except ProtocolError:
                return self._pass_on(exchange, raw)
            if response.status >= 200 or response.status == 101:
                break
            if response.status != 100 or not exchange.gave_continue:
                await send(self._far, raw)
        is_tunnel = request.method == "CONNECT" and response.status < 300
        if response.status == 101 or is_tunnel:
            self._editing.upgraded[self._context.depth + 1] = request
            exchange.has_answered = True
            await send(self._far, raw)
            return partial(self._switch, exchange, response)
        return await self._respond(exchange, head, response, raw)

    async def _response_head(self, server: Reader) -> int:
        """The length of the head of a response; 0 where there is none."""
        while True:
            try:
                length = head_length(server.data)
            except ProtocolError:
                return 0
            if length or not await server.more():
                return length

    def _without_response(self, exchange: _Exchange) -> _Then:
        """The server has ended without an answer, or sends what is none."""
        if exchange.server.data:
            return self._pass_on(exchange)
        if not exchange.request.server:
            return self._end_of_server
        raise OSError(errno.ECONNRESET, "the server has ended without an answer")

    def _pass_on(self, exchange: _Exchange, raw: bytes = b"") -> _Then:
        """What the server sends cannot be read; `raw` was. Raises OSError for another server: the
        rest of what the client says is not for it."""
        if exchange.request.server:
            raise OSError(errno.EPROTO, "what the server answers is not HTTP")
        exchange.server.data[:0] = raw
        return partial(self._relay_rest, exchange.server)

    async def _respond(
        self, exchange: _Exchange, head: ResponseHead, response: Response, raw: bytes
    ) -> _Then | None:
        server, request = exchange.server, exchange.request
        body = BodyReader(head.part, head.length)
        raw_body = b""
        if not body.is_done and self._wants(exchange, response):
            try:
                raw_body = await self._hand_over(head, response, body, server, request.stream)
            except Unreadable:
                return self._pass_on(exchange, raw)
            if request.server and server.has_ended and not body.is_done:
                raise OSError(errno.ECONNRESET, "the server has ended within its response")
        response.streams = not body.is_done or is_unread(response, raw_body)
        ending = await exchange.editor.response(exchange.flow, request, response)
        await sleep(response.delay_s)
        if ending:
            return partial(end, ending, self._client, self._far)
        if head.body_changed(response):
            raw_body = head.framed(response, bytes(body.trailer))
        exchange.has_answered = True
        await send(self._far, head.bytes_of(response))
        await send(self._far, raw_body, response.rate)
        while not body.is_done:
            try:
                taken, _ = feed(body, server)
            except Unreadable:
                return self._pass_on(exchange)
            await send(self._far, server.take(taken), response.rate)
            if not body.is_done and not await server.more() and not body.end():
                break  # a part goes on as one: with the length of the whole, and the end
        if body.is_done and head.part is not Part.UNTIL_END:
            return None
        if request.server:
            return partial(end, Ending.CLOSE, self._client, self._far)
        return self._end_of_server

    def _wants(self, exchange: _Exchange, response: Response) -> bool:
        """Whether to hold back the body of a response."""
        if not exchange.editor.wants_body(exchange.flow, exchange.request, response):
            return False
        return self._has_end(response, exchange.request.stream)

    def _has_end(self, message: Request | Response, number: int) -> bool:
        if not self._editing.is_endless(message):
            return True
        self._editing.unedited(self._context.depth, number, "a body without an end")
        return False

    async def _switch(self, exchange: _Exchange, response: Response) -> None:
        """Another protocol begins with the next byte of both directions."""
        request, editor, flow = exchange.request, exchange.editor, exchange.flow
        upgrade = (response.headers.get("upgrade") or "").lower()
        is_websocket = response.status == 101 and UPGRADES.get(upgrade.encode()) == WebSocket.name
        if not is_websocket or not editor.edits_messages(flow, request):
            await self._relay_rest(exchange.server)
            return
        await edit_messages(
            self._client,
            exchange.server,
            self._far,
            editor,
            flow,
            request,
            ",".join(response.headers.get_all("sec-websocket-extensions")),
            self._editing,
            self._context,
        )


def _is_last(headers: Headers, version: str) -> bool:
    """Whether the client expects that the connection ends after the response (RFC 9112 §9.3)."""
    options = ",".join(headers.get_all("connection")).lower()
    return "keep-alive" not in options if version == "HTTP/1.0" else "close" in options
