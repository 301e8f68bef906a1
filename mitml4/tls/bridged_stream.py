"""A byte stream inside TLS of the bridge (`tls/bridge`): the peer of `tls/stream.py`'s, which is by
OpenSSL.

Ciphertext goes through buffers that all connections share: one is lent for as long as a read or a
send takes that need not wait. Several records go through each system call. A connection that waits
holds none, only what there was no room for below.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final

import trio

from mitml4.net.stream import Stream, StreamTruncated, Transport
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.tls.records import MAX_RECORD
from mitml4.tls.bridge.connection import MIN_ROOM, Connection
from mitml4.tls.bridge.records import MAX_CONTENT
from mitml4.tls.failure import TlsFailure
from mitml4.tls.opened_stream import OpenedStream

__all__ = ["BridgedStream"]

_BUFFER_BYTES: Final = 8 * MAX_RECORD
"""Holds eight full records, sealed or open."""
_buffers: Final[list[memoryview]] = []
"""One for each buffer that was lent at once: a call that borrows one gives it back before it
returns, so they are as many as TLS layers lie inside each other."""


class BridgedStream(OpenedStream):
    """The plaintext of a connection of the bridge."""

    def __init__(self, below: Stream, connection: Connection) -> None:
        super().__init__(below)
        self.connection = connection
        self.can_interrupt = below.can_interrupt
        self._is_on_transport = isinstance(below, Transport)
        self.feeds: BridgedStream | None = None
        """The stream whose connection is given messages when this one is read, such as tickets.
        It sends them once all that has come is read; with the data that came behind them, if there
        is some."""
        self._unsent = b""
        """Records that are due, and that the stream below had no room for."""
        self._waits_for_data = False
        """Whether those wait until data is sent, or until this stream waits for some."""
        self._is_sending = False
        self._is_cut = False
        """Sending has ended in the middle of a record: nothing fits behind it."""
        self._waiting: trio.lowlevel.ParkingLot | None = None
        """Those who wait until another task has sent, or a renegotiation is over."""

    def on_certificate_request(self, call: Callable[[], None]) -> None:
        self.connection.on_request = call

    # Receiving

    def ends_behind(self, count: int) -> bool:
        return self.has_last and len(self._ahead) == count

    def _read_ahead(self, limit: int) -> int | None:
        buffer = _buffers.pop() if _buffers else _new_buffer()
        try:
            missing = limit - len(self._ahead)
            room = MAX_PEEK + 1 if missing > MAX_PEEK else max(missing, MIN_ROOM)
            count = self._read(buffer[:room]) if missing > 0 else None
            if count:
                fresh = bytes(buffer[:count])
                self._ahead = self._ahead + fresh if self._ahead else fresh
        finally:
            _buffers.append(buffer)
        return count

    def _read_records(self, buffer: memoryview) -> int | None:
        if len(buffer) >= MIN_ROOM:
            return self._read(buffer)
        count = self._read_ahead(1)
        return self.receive_nowait(buffer) if count else count

    def _read_record(self, buffer: memoryview) -> int | None:
        """Read the records that one system call brings, or that are kept, up to RECORDS_A_TURN.

        The buffer has MIN_ROOM. An error is raised after the bytes before it were returned.
        """
        connection = self.connection
        count: int | None = 0
        if not connection.has_ended:
            try:
                if connection.kept and connection.keeps_record:
                    count = connection.open(connection.kept, buffer)
                else:
                    count = self._open_next(buffer)
            except (StreamTruncated, OSError):
                connection.abandon_renegotiation()
                self._wake()
                raise
        if connection.has_ended:
            self.has_last = connection.received_close_notify
        if (self._unsent and not self._waits_for_data) or connection.due:
            self._send_due_nowait()
        if self._waiting and not connection.is_renegotiating:
            self._wake()
        if self.feeds and not count:
            self.feeds.flush_nowait()
        if count or count is None:
            return count
        if connection.failure:
            raise TlsFailure(connection.failure, connection.received_alert)
        return 0 if connection.received_close_notify else None

    def _open_next(self, buffer: memoryview) -> int | None:
        """Open what comes next; None if there is nothing to read."""
        connection = self.connection
        ciphertext = _buffers.pop() if _buffers else _new_buffer()
        try:
            kept = len(connection.kept)
            if kept:
                ciphertext[:kept] = connection.kept
            room = ciphertext[kept : connection.ciphertext_bytes(len(buffer))]
            count = self.below.receive_nowait(room)
            if count is None:
                count = self.below.receive_urgent(room)
            if count is None:
                return None
            if not count:
                raise StreamTruncated("the connection ended without close_notify")
            return connection.open(ciphertext[: kept + count], buffer)
        finally:
            _buffers.append(ciphertext)

    def _has_unread(self) -> bool:
        return bool(self.connection.kept) and self.connection.keeps_record

    async def _wait_readable(self) -> None:
        if self._has_unread():
            await trio.lowlevel.checkpoint()
        else:
            await self.below.wait_receivable()

    def wait_receivable(self) -> Coroutine[None, None, None]:
        """Not itself a coroutine, since that would be a step more of every wait."""
        if self._unsent or self.connection.due:
            self._send_due_nowait()
        if self._ahead or self.failure or self.connection.has_ended or self._has_unread():
            return trio.lowlevel.checkpoint()  # noqa: ASYNC105 - the caller awaits it
        return self.below.wait_receivable()

    def interrupt(self) -> None:
        self.below.interrupt()

    # Sending

    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        """As `Stream` has it. Once TLS has broken, sending raises BrokenPipeError: a
        StreamTruncated would be taken for the end of the stream that the data came from."""
        if 0 < len(data) <= MAX_CONTENT and not self._is_anything_in_way:
            try:
                taken, self._unsent = self._seal_and_send(data)
            except BaseException:
                self._is_cut = True
                raise
            if taken == len(data) and not self._unsent:
                return
            data = data[taken:]
        await self._begin_sending(bool(data), fed_by)
        try:
            while data or self._unsent or self.connection.due:
                is_due = self._unsent or self.connection.due
                if self.connection.is_renegotiating and not is_due:
                    await self._pause(fed_by)
                taken, rest = self._send_piece(data)
                data = data[taken:]
                if rest:
                    await self.below.send_all(memoryview(rest), fed_by=fed_by)
        except BaseException:
            self._is_cut = True
            raise
        finally:
            self._is_sending = False
            self._wake()

    @property
    def _is_anything_in_way(self) -> bool:
        """Whether data has to wait for something, or is refused."""
        connection = self.connection
        is_in_way = self._is_sending or self._unsent or self._is_cut or connection.due
        return bool(is_in_way or connection.is_shut or connection.is_renegotiating)

    async def _begin_sending(self, has_data: bool, fed_by: Transport | None) -> None:
        """Wait until nobody else sends, and data may be sent."""
        while self._is_sending or (has_data and self.connection.is_renegotiating):
            self._waiting = self._waiting or trio.lowlevel.ParkingLot()
            if fed_by is None:
                await self._waiting.park()
                continue
            with trio.CancelScope() as waiting, fed_by.watched(waiting.cancel):
                await self._waiting.park()
            if waiting.cancelled_caught:
                fed_by.raise_reset()
                fed_by = None  # it has ended both ways
        self._is_sending = True

    async def _pause(self, fed_by: Transport | None) -> None:
        """Until a renegotiation is over, which the reading of this stream brings about."""
        self._is_sending = False
        self._wake()
        await self._begin_sending(True, fed_by)

    def _wake(self) -> None:
        if self._waiting:
            self._waiting.unpark_all()

    def _send_piece(self, data: memoryview) -> tuple[int, bytes]:
        """Send what is due, and some of the data behind it, as far as there is room. Returns how
        many bytes of data are in that, and the records that there was no room for."""
        connection = self.connection
        if self._is_cut:
            raise _broken_pipe("a record was cut off")
        due = b""
        if self._unsent or connection.due:
            due = self._unsent + connection.seal_due()
            self._unsent, self._waits_for_data = b"", False
            is_data_next = data and not (connection.is_shut or connection.is_renegotiating)
            if not is_data_next or len(due) > _BUFFER_BYTES // 2:
                return 0, due
        elif connection.is_shut:
            raise _broken_pipe(connection.failure or "the stream was ended")
        return self._seal_and_send(data, due)

    def _seal_and_send(self, data: memoryview, due: bytes = b"") -> tuple[int, bytes]:
        buffer = _buffers.pop() if _buffers else _new_buffer()
        try:
            start = len(due)
            if start:
                buffer[:start] = due
            taken, length = self.connection.seal(data, buffer[start:] if start else buffer)
            length += start
            sent = 0
            if self._is_on_transport:  # others may keep a part, until more is sent
                sent = self.below.send_nowait(buffer[:length])
            return taken, b"" if sent == length else bytes(buffer[sent:length])
        finally:
            _buffers.append(buffer)

    def send_with_data(self, records: bytes) -> None:
        """Send these records, the first of this stream, with the data that is sent first; without
        data, when this stream waits to receive."""
        self._unsent, self._waits_for_data = records, True

    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        with suppress(OSError):  # receiving reports it
            await self._begin_sending(True, fed_by)  # the answers of a renegotiation come first
            self._is_sending = False
        self.connection.close()
        with suppress(OSError):
            await self.send_all(memoryview(b""), fed_by=fed_by)

    async def send_last(
        self, data: memoryview, *, ends_below: bool = False, fed_by: Transport | None = None
    ) -> None:
        connection = self.connection
        is_in_way = self._is_sending or self._is_cut or connection.is_shut
        if is_in_way or connection.is_renegotiating or not 0 < len(data) <= MAX_CONTENT:
            await super().send_last(data, ends_below=ends_below, fed_by=fed_by)
            return
        self._is_sending = True
        try:
            due = self._unsent + connection.seal_due()
            self._unsent, self._waits_for_data = b"", False
            taken, records = self._sealed(data)
            records = due + records
            if is_whole := taken == len(data):
                connection.close()
                records += connection.seal_due()
            send = self.below.send_last if is_whole and ends_below else self.below.send_all
            await send(memoryview(records), fed_by=fed_by)
        except BaseException:
            self._is_cut = True
            raise
        finally:
            self._is_sending = False
            self._wake()
        if not is_whole:
            await super().send_last(data[taken:], ends_below=ends_below, fed_by=fed_by)

    def _sealed(self, data: memoryview) -> tuple[int, bytes]:
        """Records of data, and how many bytes of it are in them."""
        buffer = _buffers.pop() if _buffers else _new_buffer()
        try:
            taken, length = self.connection.seal(data, buffer)
            return taken, bytes(buffer[:length])
        finally:
            _buffers.append(buffer)

    async def send_alert(self, alert: int, *, fed_by: Transport | None = None) -> None:
        """End the sending with a fatal alert, if it has not ended."""
        self.connection.alert(alert)
        with suppress(OSError):
            await self.send_all(memoryview(b""), fed_by=fed_by)

    def flush_nowait(self) -> None:
        """Send the messages that the connection has been given, if there is room; otherwise they
        go before other data."""
        if self._unsent or self.connection.due:
            self._send_due_nowait()

    def send_nowait(self, data: bytes | memoryview) -> int:
        self._send_due_nowait()
        connection = self.connection
        cannot = self._is_sending or self._is_cut or self._unsent
        if cannot or connection.is_shut or connection.is_renegotiating or not data:
            return 0
        taken, self._unsent = self._send_piece(memoryview(data))
        self._send_due_nowait()
        return taken

    def _send_due_nowait(self) -> None:
        """Send what is due, as far as there is room. The rest is sent before other data, as is all
        of it if another task is sending.

        So reading never waits until the far side reads.
        """
        if self._is_sending or self._is_cut:
            return
        self._waits_for_data = False
        # What is due is sealed only once there is room: until then, one answer is enough for all
        # that ask.
        while records := self._unsent or self.connection.seal_due():
            self._unsent = records
            sent = 0
            try:  # noqa: SIM105 - `suppress` costs three calls for each message
                sent = self.below.send_nowait(records)
            except (OSError, trio.ClosedResourceError):
                pass  # receiving reports it
            self._unsent = records[sent:]
            if not sent:
                return

    async def _flush_unless_sending(self) -> None:
        self._send_due_nowait()

    def close(self) -> None:
        self._send_due_nowait()
        super().close()


def _new_buffer() -> memoryview:
    return memoryview(bytearray(_BUFFER_BYTES))


def _broken_pipe(reason: str) -> BrokenPipeError:
    return BrokenPipeError(errno.EPIPE, reason)
