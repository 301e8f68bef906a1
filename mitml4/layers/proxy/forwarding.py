"""Requests in absolute-form: each goes to the server of its URL, and the response back."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final

import trio

from mitml4.dataclass import dataclass
from mitml4.edit.headers import Headers
from mitml4.edit.http1 import BodyReader, read_response
from mitml4.errors import ProtocolError
from mitml4.layers.editing.reader import Reader, relay, send
from mitml4.layers.proxy.head import response_head
from mitml4.layers.proxy.http import Asked, forwarded, is_last, without_hops
from mitml4.layers.proxy.refusal import Open, Refused, Why, http_refusal
from mitml4.net.memory import MemoryStream
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.http.http1_heads import Part
from mitml4.protocols.policy import Target
from mitml4.tasks import both, first_of

__all__ = ["Forwarding"]

_NO_ANSWER: Final = "the server has ended without an answer"


@dataclass(slots=True)
class _Server:
    target: Target | None
    reader: Reader

    @property
    def is_open(self) -> bool:
        reader = self.reader
        return not (reader.data or reader.has_ended or reader.stream.transport.has_ended())


class Forwarding:
    """The servers of one client; the last one is kept."""

    def __init__(self, client: Reader, far: MemoryStream, open: Open) -> None:
        self._client = client
        self._far = far
        self._open = open
        self._server: _Server | None = None
        self._is_switched = False
        """Another protocol has begun."""

    def close(self) -> None:
        if self._server:
            self._server.reader.stream.close()
            self._server = None

    async def serve(self, asked: Asked) -> bool:
        """Serve a request. Returns whether another may follow. Raises OSError of the client."""
        request = asked.request
        closes = is_last(request.headers, request.version)
        head = forwarded(asked) if asked.target else asked.head.bytes_of(request)
        body = BodyReader(asked.head.part, asked.head.length)
        try:
            server, is_kept = await self._server_of(asked.target)
            answered = await self._exchange(server, asked, head, body, closes=closes)
            if answered is None and is_kept and body.is_done and asked.head.is_bodiless:
                # It has ended the connection just as the request was sent.
                self.close()
                server, _ = await self._server_of(asked.target)
                answered = await self._exchange(server, asked, head, body, closes=closes)
            if answered is None:
                raise Refused(Why.ENDED, _NO_ANSWER)
        except Refused as refused:
            told = refused.why.value
            method = request.method
            said = http_refusal(told.status, str(refused), error=told.error, method=method)
            await send(self._far, said)
            return False
        return answered

    async def _server_of(self, target: Target | None) -> tuple[_Server, bool]:
        """The connection to a server, and whether it was open already. Raises Refused."""
        if self._server and self._server.target == target and self._server.is_open:
            return self._server, True
        self.close()
        self._server = _Server(target, Reader(await self._open(target)))
        return self._server, False

    async def _exchange(
        self, server: _Server, asked: Asked, head: bytes, body: BodyReader, *, closes: bool
    ) -> bool | None:
        """Send the request, and the response back. Returns whether another may follow; None: there
        is no response. Raises Refused before the client has got anything."""
        stream = server.reader.stream

        async def send_request() -> None:
            with suppress(OSError):  # it may have answered before
                await send(stream, head)
                await self._send_body(body, server)
            await self._watch_client()

        response = partial(self._receive, server, asked, body, closes=closes)
        try:
            goes_on = await first_of(response, send_request)
        except ProtocolError as error:
            raise Refused(Why.ENDED, f"the server's answer: {error.message}") from None
        if self._is_switched:
            await self._relay(server.reader)
        return goes_on

    async def _send_body(self, body: BodyReader, server: _Server) -> None:
        client = self._client
        while not body.is_done:
            try:
                taken, _ = body.feed(client.data)
            except ProtocolError:  # nobody knows where it ends
                await server.reader.stream.send_eof()
                return
            data = client.take(taken)
            if data:
                await send(server.reader.stream, data)
            if not body.is_done and not await client.more():
                await server.reader.stream.send_eof()
                return

    async def _watch_client(self) -> None:
        """A client that breaks while it waits ends this; what it sends is for the next request."""
        while len(self._client.data) <= MAX_PEEK and await self._client.more():
            pass
        await trio.sleep_forever()

    async def _receive(
        self, server: _Server, asked: Asked, body: BodyReader, *, closes: bool
    ) -> bool | None:
        reader, method = server.reader, asked.request.method
        while True:
            try:
                raw = await response_head(reader)
            except OSError as error:
                raise Refused(Why.ENDED, f"{_NO_ANSWER}: {error.strerror}") from None
            if not raw:
                return None
            head, response = read_response(raw, method)
            if response.status >= 200 or response.status == 101:
                break
            await send(self._far, raw)
        if response.status == 101:
            await send(self._far, raw)
            self._is_switched = True
            return False
        content = BodyReader(head.part, head.length)
        is_last_of_server = is_last(response.headers, response.version)
        closes = closes or not body.is_done or head.part is Part.UNTIL_END
        closes = closes or response.version != "HTTP/1.1"
        without_hops_of_response(response.headers)
        if closes:
            response.headers["Connection"] = "close"
        await send(self._far, head.bytes_of(response))
        await self._send_content(content, reader)
        if is_last_of_server or not body.is_done:
            self.close()
        return not closes

    async def _send_content(self, content: BodyReader, reader: Reader) -> None:
        while not content.is_done:
            try:
                taken, _ = content.feed(reader.data)
            except ProtocolError:
                self._far.abort()
                raise trio.ClosedResourceError from None
            if taken:
                await send(self._far, reader.take(taken))
            try:
                goes_on = content.is_done or await reader.more()
            except OSError:
                goes_on = False
                content = BodyReader(Part.COUNTED, 1)
            if not goes_on and not content.end():
                self._far.abort()  # the client must not take a part for the whole
                raise trio.ClosedResourceError

    async def _relay(self, reader: Reader) -> None:
        await both(partial(relay, self._client, reader.stream), partial(relay, reader, self._far))


def without_hops_of_response(headers: Headers) -> None:
    """Remove what is for this hop; a challenge of another proxy is for the client."""
    challenge = headers.get_all("proxy-authenticate")
    without_hops(headers)
    for each in challenge:
        headers.add("Proxy-Authenticate", each)
