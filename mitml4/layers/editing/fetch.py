"""Requests of HTTP/2 that a rule sends to another server: over HTTP/1, as they come."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from mitml4.edit.codings import body_bytes, content_codings, decoded
from mitml4.edit.headers import check_field
from mitml4.edit.http1 import BodyReader, ResponseHead, head_length, read_response
from mitml4.edit.messages import Answer, Response, is_unread, plain_answer
from mitml4.errors import ProtocolError
from mitml4.layers.editing.ending import sleep
from mitml4.layers.editing.http2_stream import StreamEditing
from mitml4.layers.editing.reader import Reader, send, send_message
from mitml4.net.stream import Stream as ByteStream
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.http2_wire import ErrorCode
from mitml4.regex import regex
from mitml4.tasks import both, first_of

__all__ = ["Fetch"]

UP, DOWN = Direction.UP, Direction.DOWN

_OF_CONNECTION: Final = (
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "te",
)
"""Fields that HTTP/2 has not (RFC 9113 §8.2.2)."""
_WITH_BODY: Final = ("POST", "PUT", "PATCH")
# RFC 9113 §10.3: "any request or response that contains a character not permitted in a field value
# MUST be treated as malformed". In HTTP/1 it would be another field, or another request.
_METHOD: Final = regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET: Final = regex(r"[!-~\x80-\xff]+")
_LENGTH: Final = regex(r"[0-9]{1,18}")


class Fetch:
    """One request on its way to `request.server`, and the response on its way back."""

    def __init__(
        self,
        on: StreamEditing,
        *,
        answer: Callable[[Answer], None],
        pace: Callable[[float | None], None],
    ) -> None:
        """`answer` sends a whole response; `pace` lets its content be sent at a rate."""
        assert on.stream.request
        assert on.stream.request.server
        self._on = on
        self._core = on.core
        self._changed = on.changed
        self._stream = on.stream
        self._editing = on.editing
        self._request = on.stream.request
        self._authority = on.stream.request.server.authority
        self._answer = answer
        self._pace = pace
        self._has_begun = False
        """Whether the client has got the head of the response."""
        self._held = 0

    async def run(self) -> None:
        """Until the response is sent, or the client has given up."""
        await first_of(self._fetch, self._wait_gone)
        self._core.end_request(self._stream)
        self._changed.unpark_all()

    @property
    def _is_open(self) -> bool:
        return self._core.streams.get(self._stream.number) is self._stream

    async def _wait_gone(self) -> None:
        while self._is_open:
            await self._changed.park()

    async def _fetch(self) -> None:
        try:
            self._check()
        except ValueError as error:
            self._answer(plain_answer(400, str(error)))
            return
        body, is_whole = self._body()
        await sleep(self._request.delay_s)
        try:
            assert self._request.server
            server = await self._editing.connect(self._request.server)
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        try:
            await self._exchange(server, body, is_whole=is_whole)
        except OSError as error:
            self._fail(error.strerror or str(error))
        except ProtocolError as error:
            self._fail(error.message)
        finally:
            self._editing.memory.give_back(self._held)
            server.close()

    def _check(self) -> None:
        """Raises ValueError for a request that cannot be sent by HTTP/1."""
        request = self._request
        if not (_METHOD.fullmatch(request.method) and _TARGET.fullmatch(request.path)):
            raise ValueError("no request line")
        for each in request.headers.fields:
            check_field(each.name, each.value)
        lengths = request.headers.get_all("content-length")
        if lengths and not (len(lengths) == 1 and _LENGTH.fullmatch(lengths[0])):
            raise ValueError("no length of a body")

    def _body(self) -> tuple[bytes, bool]:
        """The body of the request as far as it is there, and whether that is all."""
        request, half = self._request, self._stream.up
        came, content = bytes(half.queue), half.content
        is_whole = half.has_ended
        if request.body is not None and request.body != content:
            codings = content_codings(request.headers)
            return body_bytes(request, content, codings), True
        if is_whole:
            return came, True
        self._core.hold_request(self._stream)
        return b"", False

    def _fail(self, reason: str) -> None:
        if self._has_begun:
            self._core.reset(self._stream, ErrorCode.INTERNAL_ERROR)
        elif self._is_open:
            self._answer(plain_answer(502, f"{self._authority}: {reason}"))

    async def _exchange(self, server: ByteStream, body: bytes, *, is_whole: bool) -> None:
        """Raises OSError, ProtocolError."""
        length = str(len(body)) if is_whole else self._request.headers.get("content-length")
        head = self._head(length, has_body=bool(body) or not is_whole)
        await send_message(server, head, body, self._request.rate)
        done = trio.CancelScope()

        async def send_rest() -> None:
            if not is_whole:
                with done, suppress(OSError):  # a server that takes no more may have answered
                    await self._send_body(server, None if length is None else int(length))

        async def receive() -> None:
            await self._receive(Reader(server))
            done.cancel()

        await both(send_rest, receive)

    def _head(self, length: str | None, *, has_body: bool) -> bytes:
        request = self._request
        assert request.server
        target = request.server.prefix + request.path
        lines = [f"{request.method} {target} HTTP/1.1", f"Host: {self._authority}"]
        for name, value in request.headers.items():
            if name.lower() not in ("host", "content-length", "cookie", *_OF_CONNECTION):
                lines.append(f"{name}: {value}")
        if cookies := request.headers.get_all("cookie"):
            lines.append(f"Cookie: {'; '.join(cookies)}")  # RFC 9113 §8.2.3
        if length is None:
            lines.append("Transfer-Encoding: chunked")
        elif has_body or request.method in _WITH_BODY:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "Connection: close", "\r\n"]).encode("latin-1")

    async def _send_body(self, server: ByteStream, left: int | None) -> None:
        """`left`: how many bytes the server expects; None: in chunks. Raises OSError, and
        ProtocolError if there are more or fewer (RFC 9113 §8.1.1)."""
        core, stream = self._core, self._stream
        while not core.has_ended(stream, UP):
            if not core.has_content(stream, UP):
                await self._changed.park()
                continue
            data = core.take_content(stream, UP)
            self._changed.unpark_all()
            if left is None:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            elif (left := left - len(data)) < 0:
                raise ProtocolError("a body that is longer than its length")
            await send(server, data, self._request.rate)
        if left:
            raise ProtocolError("a body that is shorter than its length")
        if left is None:
            await send(server, b"0\r\n\r\n")

    # The response

    async def _receive(self, server: Reader) -> None:
        """Raises OSError, ProtocolError."""
        while True:
            while not (length := head_length(server.data)):
                if not await server.more():
                    raise OSError(errno.ECONNRESET, "the server has ended without an answer")
            head, response = read_response(server.take(length), self._request.method)
            if response.status >= 200:
                break
        for name in _OF_CONNECTION:
            response.headers.discard(name)
        body = BodyReader(head.part, head.length)
        content = b""
        if self._wants_body(response):
            content = await self._hold(server, body, response)
        response.streams = not body.is_done or is_unread(response, content)
        came = response.body
        ending = await self._on.editor.response(self._on.flow, self._request, response)
        await sleep(response.delay_s)
        if ending:
            self._answer(ending)
        elif body.is_done:
            codings = content_codings(response.headers)
            is_same = response.body is None or response.body == came
            response.body = content if is_same else body_bytes(response, came, codings)
            self._answer_whole(response, head)
        else:
            await self._stream_body(server, body, response, content)

    def _wants_body(self, response: Response) -> bool:
        if not self._on.editor.wants_body(self._on.flow, self._request, response):
            return False
        if not self._editing.is_endless(response):
            return True
        self._on.unedited("a body without an end")
        return False

    async def _hold(self, server: Reader, body: BodyReader, response: Response) -> bytes:
        """Hold the body back, and give it to the message. Returns what has come of it. Raises
        OSError, ProtocolError."""
        held = bytearray()
        while not body.is_done:
            piece = self._piece(server, body)
            held += piece
            if len(held) > self._editing.limit or not self._editing.memory.take(len(piece)):
                self._on.unedited(self._editing.too_large(len(held)))
                return bytes(held)
            self._held += len(piece)
            await self._more(server, body)
        response.body = decoded(bytes(held), content_codings(response.headers), self._editing.limit)
        if response.body is None:
            self._on.unedited("a body whose coding cannot be undone")
        return bytes(held)

    def _piece(self, server: Reader, body: BodyReader) -> bytes:
        """Raises ProtocolError."""
        taken, pieces = body.feed(server.data)
        server.take(taken)
        return b"".join(pieces)

    async def _more(self, server: Reader, body: BodyReader) -> None:
        """Raises OSError."""
        if not body.is_done and not await server.more() and not body.end():
            raise OSError(errno.ECONNRESET, "the server has ended within its answer")

    def _answer_whole(self, response: Response, head: ResponseHead) -> None:
        if self._request.method == "HEAD" or response.status in (204, 304):
            length = response.headers.get("content-length")
            response.body = b""
            if length and self._core.begin_answer(self._stream, response):
                self._core.end_content(self._stream, DOWN)
                return
        self._answer(response)

    async def _stream_body(
        self, server: Reader, body: BodyReader, response: Response, content: bytes
    ) -> None:
        """Raises OSError, ProtocolError."""
        core, stream = self._core, self._stream
        self._has_begun = core.begin_answer(stream, response)
        self._pace(response.rate)
        while core.send_content(stream, DOWN, content):
            self._changed.unpark_all()
            if body.is_done:
                break
            while core.is_full(stream, DOWN):
                await self._changed.park()
            content = self._piece(server, body)
            await self._more(server, body)
        core.end_content(stream, DOWN)
