"""HTTP/2 with editing: the frames are `edit/http2`'s; this moves its bytes, and asks the editor.

An editor that never waits is asked in the order in which the messages come. One that may wait is
asked in a task for each message, so that a stream does not wait for another one.
"""

from __future__ import annotations

import base64
import binascii
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from mitml4.edit.http2.core import Http2Core
from mitml4.edit.http2.state import Job, Stream
from mitml4.edit.messages import Answer, Ending, Request, Response, is_unread, plain_answer
from mitml4.errors import ProtocolError
from mitml4.layers.editing.ending import sleep
from mitml4.layers.editing.fetch import Fetch
from mitml4.layers.editing.flow import FlowEditing, Origin
from mitml4.layers.editing.http2_stream import StreamEditing
from mitml4.layers.editing.http2_websocket import StreamMessages, asks_for_socket
from mitml4.layers.editing.reader import Reader, end_below, pass_end
from mitml4.net.memory import MemoryStream
from mitml4.net.stream import Stream as ByteStream
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction
from mitml4.protocols.http.http2_wire import ErrorCode, Http2Error
from mitml4.tasks import both

__all__ = ["Http2Editing"]

UP, DOWN = Direction.UP, Direction.DOWN

_STEP_S: Final = 0.05
_MAX_WAITING: Final = 1 << 20
"""Bytes that may wait to be sent before no more are read."""


class Http2Editing:
    """The connection of one client."""

    def __init__(
        self, far: MemoryStream, origin: Origin, editing: FlowEditing, context: LayerContext
    ) -> None:
        self._far = far
        self._origin = origin
        self._editing = editing
        self._context = context
        self._core = Http2Core(editing.limit, editing.memory, is_strict=editing.guards)
        if context.stack[-1:] == ("http/1",):
            self._begin_upgraded(editing.upgraded.pop(context.depth, None))
        self._edits = editing.may_match(context)
        self._changed = trio.lowlevel.ParkingLot()
        """What waits to be sent has changed."""
        self._ended: set[Direction] = set()
        self._fetching: set[int] = set()
        """The streams whose requests go to another server."""
        self._sockets: set[int] = set()
        """The streams that ask for a WebSocket whose messages are edited."""
        self._nursery: trio.Nursery

    def _begin_upgraded(self, request: Request | None) -> None:
        settings = b""
        if request:
            named = request.headers.get("http2-settings") or ""
            with suppress(binascii.Error, ValueError):
                settings = base64.urlsafe_b64decode(named + "=" * (-len(named) % 4))
        with suppress(ProtocolError):
            self._core.begin_upgraded(request, settings)

    async def run(self) -> None:
        """Serve the client to its end. Raises OSError."""
        server = await self._origin.get()
        try:
            await self._run(server)
        finally:
            self._core.close()

    async def _run(self, server: ByteStream) -> None:
        client_reader, server_reader = Reader(self._far), Reader(server)
        failures: list[OSError] = []
        async with trio.open_nursery() as nursery:
            self._nursery = nursery

            async def up() -> None:
                await both(
                    lambda: self._read(UP, client_reader),
                    lambda: self._write(UP, server_reader, client_reader),
                )

            async def down() -> None:
                await both(
                    lambda: self._read(DOWN, server_reader),
                    lambda: self._write(DOWN, client_reader, server_reader),
                )

            try:
                await both(up, down)
            except OSError as error:
                failures.append(error)
            except ProtocolError as error:
                self._report(error)
                self._far.abort()
            nursery.cancel_scope.cancel()
        if failures:
            raise failures.pop()

    async def _read(self, direction: Direction, source: Reader) -> None:
        while await source.more():
            try:
                self._core.receive(direction, source.take())
            except Http2Error as error:
                if direction is DOWN:
                    raise
                self._report(error)
                self._core.fail(error.code)
                self._changed.unpark_all()
                return
            if self._core.has_pushed and self._edits:
                self._editing.unedited(self._context.depth, None, "pushed streams")
            await self._ask()
            while any(self._core.waiting(each) > _MAX_WAITING for each in Direction):
                await self._changed.park()
        self._core.end(direction)
        self._ended.add(direction)
        await self._ask()

    async def _write(self, direction: Direction, sink: Reader, source: Reader) -> None:
        """Send what is there, and the ends of the source behind it."""
        while True:
            if data := self._core.take(direction):
                await sink.stream.send_all(memoryview(data))
                self._changed.unpark_all()
            elif self._core.has_failed and direction is DOWN:
                self._nursery.cancel_scope.cancel()
                return
            elif direction in self._ended and self._core.is_idle(direction):
                await pass_end(source, sink.stream)
                await end_below(source, sink.stream)
                return
            else:
                await self._changed.park()

    def _report(self, error: ProtocolError) -> None:
        self._editing.report.error("client", "relay", "protocol", error.message)

    # Asking the editor

    async def _ask(self) -> None:
        while self._core.jobs:
            job = self._core.jobs.pop(0)
            if self._editing.editor().may_wait:
                self._nursery.start_soon(self._work, job)
            else:
                await self._work(job)
        self._changed.unpark_all()

    async def _work(self, job: Job) -> None:
        stream = job.stream
        if self._core.streams.get(stream.number) is not stream or stream.number in self._fetching:
            return
        if job.direction is UP:
            await self._request(stream)
        else:
            await self._response(stream)
        self._changed.unpark_all()

    async def _request(self, stream: Stream) -> None:
        request, editor = stream.request, self._editing.editor()
        assert request
        assert stream.up.head
        if refused := self._editing.refuses(self._context, stream.up.head.headers):
            self._core.answer(stream, plain_answer(421, refused))  # RFC 9110 §15.5.20
            return
        flow = self._editing.known(self._context, "http/2")
        wants = request.method != "CONNECT" and editor.wants_body(flow, request, None)
        wants = wants and self._has_end(stream, request)
        if not self._has_body(stream, UP, wants):
            return
        request.streams = not stream.up.has_ended or is_unread(request, stream.up.queue)
        answer = await editor.request(flow, request)
        if request.server and not answer:
            self._fetching.add(stream.number)
            self._nursery.start_soon(self._fetch, stream)
            return
        if request.delay_s:
            self._nursery.start_soon(self._requested_later, stream, answer)
        else:
            self._requested(stream, answer)

    async def _fetch(self, stream: Stream) -> None:
        """Send a request to another server."""

        def answer(given: Answer) -> None:
            self._requested(stream, given)

        on = self._on(stream, "http/2")
        fetch = Fetch(on, answer=answer, pace=partial(self._pace, stream, DOWN))
        await fetch.run()
        self._fetching.discard(stream.number)

    async def _requested_later(self, stream: Stream, answer: Answer | None) -> None:
        assert stream.request
        await sleep(stream.request.delay_s)
        self._requested(stream, answer)
        self._changed.unpark_all()

    def _requested(self, stream: Stream, answer: Answer | None) -> None:
        assert stream.request
        match answer:
            case Response():
                self._core.answer(stream, answer)
                self._pace(stream, DOWN, answer.rate)
            case Ending():
                self._end(stream, answer)
            case None:
                self._prepare_socket(stream, stream.request)
                self._core.release(stream, UP, stream.request.rate)
                self._pace(stream, UP, stream.request.rate)

    async def _response(self, stream: Stream) -> None:
        request, response, editor = stream.request, stream.response, self._editing.editor()
        assert response
        if request is None:
            self._core.release(stream, DOWN, None)
            return
        if request.method == "CONNECT" and response.status < 300:
            self._responded(stream, None)  # what follows is no body (RFC 9110 §9.3.6)
            return
        flow = self._editing.known(self._context, "http/2")
        wants = editor.wants_body(flow, request, response) and self._has_end(stream, response)
        if not self._has_body(stream, DOWN, wants):
            return
        response.streams = not stream.down.has_ended or is_unread(response, stream.down.queue)
        ending = await editor.response(flow, request, response)
        if response.delay_s:
            self._nursery.start_soon(self._responded_later, stream, ending)
        else:
            self._responded(stream, ending)

    async def _responded_later(self, stream: Stream, ending: Ending | None) -> None:
        assert stream.response
        await sleep(stream.response.delay_s)
        self._responded(stream, ending)
        self._changed.unpark_all()

    def _responded(self, stream: Stream, ending: Ending | None) -> None:
        assert stream.response
        if ending:
            self._end(stream, ending)
        elif stream.number in self._sockets:
            self._open_socket(stream, stream.response)
        else:
            self._core.release(stream, DOWN, stream.response.rate)
            self._pace(stream, DOWN, stream.response.rate)

    def _prepare_socket(self, stream: Stream, request: Request) -> None:
        """Hold what the client sends, until it is known whether the server opens a WebSocket."""
        flow = self._editing.known(self._context, "http/2")
        if asks_for_socket(stream) and self._editing.editor().edits_messages(flow, request):
            self._sockets.add(stream.number)
            self._core.stream_content(stream, UP)

    def _open_socket(self, stream: Stream, response: Response) -> None:
        self._sockets.discard(stream.number)
        if not 200 <= response.status < 300:
            self._core.release(stream, DOWN, response.rate)
            self._core.let_content_pass(stream, UP)
            return
        self._core.stream_content(stream, DOWN)
        self._core.release(stream, DOWN, None)
        messages = StreamMessages(self._on(stream, "http/2", "websocket"))
        for direction in Direction:
            self._nursery.start_soon(messages.run, direction)

    def _on(self, stream: Stream, *stack: str) -> StreamEditing:
        return StreamEditing(
            core=self._core,
            changed=self._changed,
            stream=stream,
            editor=self._editing.editor(),
            flow=self._editing.known(self._context, *stack),
            editing=self._editing,
            depth=self._context.depth,
        )

    def _has_end(self, stream: Stream, message: Request | Response) -> bool:
        if not self._editing.is_endless(message):
            return True
        self._editing.unedited(self._context.depth, stream.number, "a body without an end")
        return False

    def _has_body(self, stream: Stream, direction: Direction, wants: bool) -> bool:
        """Give the message its body if the editor wants it. Returns whether to ask the editor now;
        otherwise the job comes again."""
        half = stream.half(direction)
        if not wants:
            return True
        if not half.was_asked and not self._core.collect(stream, direction):
            return False
        depth, number = self._context.depth, stream.number
        if half.is_above:
            self._editing.unedited(depth, number, self._editing.too_large(len(half.queue)))
        elif not half.has_ended:
            self._editing.unedited(depth, number, "a body that was cut off")
        elif half.queue and not self._core.hand_over(stream, direction):
            self._editing.unedited(depth, number, "a body whose coding cannot be undone")
        return True

    def _end(self, stream: Stream, ending: Ending) -> None:
        match ending:
            case Ending.RESET:
                self._core.reset(stream, ErrorCode.INTERNAL_ERROR)
            case Ending.CLOSE:
                self._core.reset(stream, ErrorCode.CANCEL)
            case Ending.HANG:
                self._core.hang(stream)

    def _pace(self, stream: Stream, direction: Direction, rate: float | None) -> None:
        if rate:
            self._nursery.start_soon(self._allow, stream, direction, rate)

    async def _allow(self, stream: Stream, direction: Direction, rate: float) -> None:
        owed = 0.0
        while True:
            owed += rate * _STEP_S
            count, owed = int(owed), owed % 1
            if not self._core.allow(stream, direction, count):
                return
            self._changed.unpark_all()
            await trio.sleep(_STEP_S)
