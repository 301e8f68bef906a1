"""One direction of a bridge.

A lane looks at the bytes of its source and moves them to its sink. A conversation claims the bytes
that it has read. Bytes that move before that are kept (`ahead`). So a server that speaks first is
relayed at once, and the conversation that is found a moment later still reads what it has said.

If a conversation claims some of the bytes that have come, these wait in the source until the others
are claimed as well (`due`). So bytes that came together leave together, also where one layer ends
between them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Final, TypeAlias

import trio

from mitml4.dataclass import dataclass
from mitml4.layers.relay import Relay
from mitml4.net.stream import Stream, StreamTruncated, UrgentAhead
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.tls.failure import TlsFailure

__all__ = ["BrokenTlsError", "Lane"]

Show: TypeAlias = Callable[[bytes], Awaitable[None]]

_FREE_LOOK_BYTES: Final = 1024
"""Up to this many bytes are shown again at once whenever another byte has come."""
_GROWTH: Final = 8
"""More bytes are shown again at once only if an eighth of them has come in addition."""
_PAUSE_S_PER_BYTE: Final = 1e-7
"""Otherwise they are shown again after this pause for each of them: 6 ms at MAX_PEEK."""

_ALERT_S: Final = 1.0
"""How long a server's alert may wait for room at the client, before the client is reset."""

_WORTH_SPLICING_BYTES: Final = 64 * 1024
"""A flow that has moved less goes through a buffer: a pipe costs two descriptors."""


class BrokenTlsError(OSError):
    """The server has sent something that breaks its TLS."""


@dataclass(slots=True)
class Lane:
    """One direction of a bridge. Its methods raise OSError when either side breaks."""

    source: Stream
    sink: Stream
    relay: Relay
    answers: Lane | None = None
    """The lane in which the client speaks, if this is the server's and broken TLS in it is an
    error, and not only its end. The client would take what it has for the whole response, so its
    connection is reset; but not if the client itself has ended without close_notify, since OpenSSL
    answers that with an alert (decode_error)."""
    on_urgent: Callable[[], None] = lambda: None
    """Is told of urgent data before it moves, while somebody looks."""
    on_moved: Callable[[bytes | memoryview], None] | None = None
    """Is given a copy of what moves, before it is sent, and nothing at the end."""
    ahead: bytearray = field(default_factory=bytearray)
    """Bytes that the sink has already, and that no conversation has claimed. The engine has it for
    as long as it follows the lane."""
    due: bytes = b""
    """Unread bytes that are claimed, and that the sink gets with those behind them, or on
    `flush`."""
    ended: bool = False
    """The source has ended; all that is left of it is in `look`."""
    truncation: StreamTruncated | None = None
    """How it ended, if that was not the stream's own end."""
    _ended_unread: bool = False
    """It ended with bytes that had not moved: then a reset has not been read yet."""
    _ended_sinks: list[Stream] = field(default_factory=list)
    """Those of the sink's streams that have been sent the end."""

    async def look(self, beyond: int) -> bytes:
        """The unclaimed bytes, moved or not, once there are more than `beyond`, or at the end.

        Call `flush` first. Cancelling loses nothing.
        """
        while len(self.ahead) <= beyond:
            fresh = await self.more(beyond - len(self.ahead))
            if self.ended or len(self.ahead) + len(fresh) > beyond:
                return bytes(self.ahead) + fresh
        return self.glance()

    def glance(self) -> bytes:
        """The unclaimed bytes that are there now, moved or not."""
        return bytes(self.ahead) + self.unread_nowait()

    def unread_nowait(self) -> bytes:
        """The bytes behind `due` that are there and have not moved, MAX_PEEK + 1 at most."""
        due = len(self.due)
        return self.source.peek_nowait(due + MAX_PEEK + 1)[due:]

    async def more(self, beyond: int) -> bytes:
        """The bytes that have not moved, once there are more than `beyond` (MAX_PEEK + 1 at most).

        Fewer come back when the source has ended, and `ended` is set then; and when urgent data has
        moved, which is in `ahead` then. Call `flush` first. Cancelling loses nothing.

        Where many bytes would be shown again for each one that follows, a short pause lets more
        come. Otherwise the cost of looking would grow with the square of what is looked at.
        """
        if not beyond:
            try:
                return await self.next()
            except UrgentAhead as urgent:
                return await self.move_over(urgent)
        await trio.lowlevel.checkpoint()  # a byte more may be there each time
        data = await self._more(beyond)
        enough = min(beyond + beyond // _GROWTH, MAX_PEEK)
        if beyond > _FREE_LOOK_BYTES and beyond < len(data) < enough and not self.ended:
            with trio.move_on_after(beyond * _PAUSE_S_PER_BYTE):
                return await self._more(enough)
            data = self.unread_nowait()
        return data

    async def next(self) -> bytes:
        """The bytes that have not moved, once something may have come: none if that was nothing
        that is to move, as a ticket of TLS. Otherwise as `more`. It waits once.

        Raises UrgentAhead if urgent data comes next, which `move_over` moves.
        """
        source = self.source
        try:  # mostly nothing is there yet, and to find that out costs an exception
            await source.wait_receivable()
            fresh = source.peek_available(MAX_PEEK + 1)
        except StreamTruncated as truncation:
            self.truncation = truncation.with_traceback(None)
            fresh = b""
        self._ended_unread = False
        if fresh:
            self.ended = False
        elif fresh is not None:
            await self._note_end()
        return fresh or b""

    async def _more(self, beyond: int) -> bytes:
        assert not self.due
        try:
            fresh = await self.source.peek(beyond, MAX_PEEK + 1)
        except UrgentAhead as urgent:
            return await self.move_over(urgent)
        except StreamTruncated as truncation:
            self.truncation = truncation.with_traceback(None)
            fresh = b""
        if len(fresh) <= beyond:
            await self._note_end()
        else:
            self.ended = False
        self._ended_unread = self.ended and bool(fresh)
        return fresh

    def are_last(self, fresh: bytes) -> bool:
        """Whether the source is known to end behind these, which have not moved."""
        return self.source.ends_behind(len(self.due) + len(fresh))

    def claim_last(self, data: bytes) -> None:
        """Claim these, behind which the source ends. They leave with the end."""
        self.claim(data)
        self.ended = True

    def claim(self, data: bytes) -> None:
        """Claim these, which are the next that have not moved. `flush` sends them, or what moves
        next."""
        self.due = self.due + data if self.due else data

    async def flush(self) -> None:
        """Send the sink all that is claimed."""
        if self.due:
            await self.send_with_due(b"")

    def note_sent(self, count: int) -> None:
        """The sink has been sent the next bytes of the source by somebody else."""
        self.ahead += self.source.peek_nowait(count)
        self.source.discard(count)

    async def send_with_due(self, fresh: bytes) -> None:
        """Send what is claimed, and these bytes behind it."""
        data = self.due + fresh if self.due else fresh
        if self.on_moved:
            self._note_moved(data)
        await self.sink.send_all(memoryview(data), fed_by=self.source.transport)
        self.source.discard(len(data))
        self.due = b""

    def _note_moved(self, data: bytes | memoryview) -> None:
        if self.on_moved and data:
            self.on_moved(data)

    async def move_over(self, urgent: UrgentAhead) -> bytes:
        """Send the sink urgent data, and what comes before it; claim nothing of it. Returns the
        bytes behind it that are there.

        Cancelling loses nothing.
        """
        self.on_urgent()
        before = urgent.before
        while before:
            sent = await self.sink.send_some(before, fed_by=self.source.transport)
            self._note_moved(before[:sent])
            self.source.discard(sent)
            self.ahead += before[:sent]
            before = before[sent:]
        self.ahead += await self._send_urgent()
        return self.unread_nowait()

    async def _send_urgent(self) -> bytes:
        """Move what comes next if it is urgent, as such."""
        data = self.source.peek_urgent()
        if data:
            self._note_moved(data)
            await self.sink.send_some(data, as_urgent=True, fed_by=self.source.transport)
            self.source.discard(len(data))
        return data

    async def pass_on(self, count: int | None) -> int:
        """Move `count` bytes (None: all) unseen, and say how many moved.

        When they are fewer, the source has ended. The last of them are `due` if more has come
        with them.
        """
        moved = 0
        while count is None or moved < count:
            left = None if count is None else count - moved
            burst = await self._burst(left, in_kernel=moved >= _WORTH_SPLICING_BYTES)
            if not burst:
                break
            moved += burst
        return moved

    async def mirror(self, show: Show, limit: int | None = None) -> None:
        """Move what comes next, once something does, at most `limit` bytes; `show` is given a copy
        first. They are `due` if more has come with them. Sets `ended`."""
        if self.due:
            await self.flush()
        count: int | None
        try:
            await self.source.wait_receivable()  # TLS inside TLS already reads what carries it here
            if limit and (last := self._last_before_more(limit)):
                await show(last)
                self.claim(last)
                self.ended = False
                return
            buffer = self.relay.borrow()
            try:
                count = self.source.receive_nowait(buffer if limit is None else buffer[:limit])
                if count:
                    await self._show_and_send(buffer[:count], show)
            finally:
                self.relay.give_back(buffer)
        except StreamTruncated as truncation:
            self.truncation = truncation.with_traceback(None)
            count = 0
        if count is None and (urgent := self.source.peek_urgent()):
            await show(urgent)
            await self._send_urgent()
        if count == 0:
            await self._note_end()
        else:
            self.ended = False

    async def _show_and_send(self, data: memoryview, show: Show) -> None:
        await show(bytes(data))
        if self.on_moved:
            self._note_moved(data)
        await self.sink.send_all(data, fed_by=self.source.transport)

    async def _burst(self, left: int | None, *, in_kernel: bool) -> int:
        """Move what is there, once something is; 0 at the end of the source. Checkpoints."""
        if self.due and (moved_along := await self._flush_and_more(left)):
            return moved_along
        source, sink = self.source, self.sink
        moved: int | None = None
        waited = False
        try:
            while moved is None:
                if left and (last := self._last_before_more(left)):
                    self.claim(last)
                    moved = left
                elif in_kernel and not self.on_moved:
                    moved = await self.relay.splice(source, sink, left)
                else:
                    moved = await self.relay.copy(source, sink, left, self.on_moved)
                # splice(2) takes urgent data for the end, once a FIN has come behind it.
                may_be_urgent = moved == 0 or (moved is None and waited)
                if may_be_urgent and (urgent := await self._send_urgent()):
                    moved = len(urgent)
                if moved is None:
                    await source.wait_receivable()
                    waited = True
        except StreamTruncated as truncation:
            self.truncation = truncation.with_traceback(None)
            moved = 0
        if moved:
            self.ended = False
        else:
            await self._note_end()
        await trio.lowlevel.checkpoint()
        return moved

    def _last_before_more(self, left: int) -> bytes:
        """The next `left` bytes, if more has come behind them that leaves together with them; empty
        if not."""
        source = self.source
        if left > MAX_PEEK or (source is source.transport and source.unread_count() <= left):
            return b""
        fresh = source.peek_nowait(MAX_PEEK + 1)
        return fresh[:left] if len(fresh) > left else b""

    async def _flush_and_more(self, left: int | None) -> int:
        """Move what is due, and with it what comes next and is there already; how much that is."""
        fresh = self.unread_nowait()[:left]
        await self.send_with_due(fresh)
        await trio.lowlevel.checkpoint()
        return len(fresh)

    async def _note_end(self) -> None:
        """Finds out how the source has ended. Raises OSError for a reset, and BrokenTlsError."""
        await self.relay.take_turn_to_end()
        self.source.transport.raise_if_reset()
        broke = isinstance(self.truncation, TlsFailure)
        if broke and self.answers and not self.answers.truncation:
            with trio.move_on_after(_ALERT_S):
                await self._pass_on_alert()
            raise BrokenTlsError(str(self.truncation))
        self.ended = True

    async def _pass_on_alert(self) -> None:
        """Send the sink the alert that has ended the source, if that was one."""
        if isinstance(self.truncation, TlsFailure) and self.truncation.alert is not None:
            await self.sink.send_alert(self.truncation.alert, fed_by=self.source.transport)

    async def say_ended(self) -> None:
        """Send the sink all that is claimed, and the end of the source at once, in the way it came.

        A FIN that came without close_notify goes on without one; so does an alert. Raises OSError
        if it was a reset.
        """
        if self.due and self.source.has_last:
            await self._send_last()
            return
        await self.flush()
        if self._ended_unread:
            self.source.transport.raise_reset()
        if self.on_moved:
            self.on_moved(b"")
        if self.truncation:
            await self._pass_on_alert()
            await self._end_below()
        else:
            await self._send_eof_once(self.sink)

    async def _send_last(self) -> None:
        """Send the sink all that is claimed together with the end, and with the end of the
        connection if that has come too."""
        source, sink, last = self.source, self.sink, self.due
        if self.on_moved:
            self.on_moved(last)
            self.on_moved(b"")
        self._ended_sinks.append(sink)
        transport = source.transport
        ends_below = bool(source.below is transport and sink.below and transport.is_at_end)
        if ends_below and sink.below:
            self._ended_sinks.append(sink.below)
        await sink.send_last(memoryview(last), ends_below=ends_below, fed_by=transport)
        source.discard(len(last))
        self.due = b""

    async def end(self) -> None:
        """The same, and the FIN that follows a close_notify, when it comes.

        It may be cancelled, and called again.
        """
        await self.say_ended()
        if not self.truncation:
            await self._end_below()

    async def _end_below(self) -> None:
        """Pass on the ends of the streams below, one by one down to the transport.

        Below TLS that broke there may be no end yet, but nothing more will come.
        """
        source, sink = self.source, self.sink
        broke = isinstance(self.truncation, TlsFailure)
        while source.below and sink.below:
            source, sink = source.below, sink.below
            try:
                if not (broke or sink in self._ended_sinks):  # else it has come already
                    await source.wait_end()
            except StreamTruncated:
                continue
            broke = False
            await self._send_eof_once(sink)

    async def _send_eof_once(self, sink: Stream) -> None:
        if sink not in self._ended_sinks:
            self._ended_sinks.append(sink)
            await sink.send_eof(fed_by=self.source.transport)
