"""A byte stream inside TLS of the bridge (`tls/bridge`): the peer of `tls/stream.py`'s, which is by
OpenSSL.

Ciphertext goes through buffers that all connections share: one is lent for the length of a read, or
of a send. Several records go through each system call. An idle connection holds none.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from mitml4.net import urgent
from mitml4.net.stream import Stream, StreamTruncated, Transport
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.tls.records import MAX_RECORD
from mitml4.tls.bridge.connection import MIN_ROOM, Connection
from mitml4.tls.failure import TlsFailure
from mitml4.tls.opened_stream import OpenedStream

__all__ = ["BridgedStream"]

_BUFFER_BYTES: Final = 8 * MAX_RECORD
"""Holds eight full records, sealed or open."""
_IDLE_BUFFERS: Final = 32
_FEW_BYTES: Final = 4096
"""Up to so many bytes are not worth a buffer while they wait for room."""
_buffers: Final[list[memoryview]] = []


class BridgedStream(OpenedStream):
    """The plaintext of a connection of the bridge."""

    def __init__(self, below: Stream, connection: Connection) -> None:
        super().__init__(below)
        self.connection = connection
        self._unsent = b""
        """Records that were sealed, and that the stream below had no room for."""
        self._is_cut = False
        """Sending has ended in the middle of a record: nothing fits behind it."""
        self._sending = trio.Lock()

    def on_certificate_request(self, call: Callable[[], None]) -> None:
        self.connection.on_request = call

    # Receiving

    def _read_ahead(self, limit: int) -> int | None:
        buffer = _lend()
        try:
            missing = min(limit - len(self._ahead), MAX_PEEK + 1)
            count = self._read(buffer[: max(missing, MIN_ROOM)]) if missing > 0 else None
            if count:
                self._ahead += buffer[:count]
        finally:
            _give_back(buffer)
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
            count = self._open(buffer)
        if self._unsent or connection.has_due:
            self._send_due_nowait()
        if count or count is None:
            return count
        if connection.failure:
            raise TlsFailure(connection.failure, connection.received_alert)
        return 0 if connection.received_close_notify else None

    def _open(self, buffer: memoryview) -> int | None:
        """Open the records that are kept, or else read; None if there is nothing to read."""
        connection = self.connection
        if connection.keeps_record:
            return connection.open(connection.kept, buffer)
        ciphertext = _lend()
        try:
            kept = len(connection.kept)
            ciphertext[:kept] = connection.kept
            room = ciphertext[kept : connection.ciphertext_bytes(len(buffer))]
            count = self._receive_below(room)
            if count is None:
                return None
            if not count:
                raise StreamTruncated("the connection ended without close_notify")
            return connection.open(ciphertext[: kept + count], buffer)
        finally:
            _give_back(ciphertext)

    def _receive_below(self, room: memoryview) -> int | None:
        count = self.below.receive_nowait(room)
        if count is None and urgent.has_come and (byte := self.below.peek_urgent()):
            # TLS has no urgent data: the byte is a part of a record, as for OpenSSL.
            room[: len(byte)] = byte
            self.below.discard(len(byte))
            return len(byte)
        return count

    def _has_unread(self) -> bool:
        return self.connection.keeps_record

    async def _wait_readable(self) -> None:
        if self._has_unread():
            await trio.lowlevel.checkpoint()
        else:
            await self.below.wait_receivable()

    async def wait_receivable(self) -> None:
        await self._flush_unless_sending()
        if self.failure or self.connection.has_ended or self._ahead:
            await trio.lowlevel.checkpoint()
        else:
            await self._wait_readable()

    # Sending

    async def send_all(self, data: memoryview, *, fed_by: Transport | None = None) -> None:
        """As `Stream` has it. Once TLS has broken, sending raises BrokenPipeError: a
        StreamTruncated would be taken for the end of the stream that the data came from."""
        await self._begin_sending()
        try:
            while True:
                await self._send_due(fed_by)
                if not data:
                    return
                data = data[await self._send_records(data, fed_by) :]
        except BaseException:
            self._is_cut = True
            raise
        finally:
            self._sending.release()

    async def _begin_sending(self) -> None:
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()

    async def _send_due(self, fed_by: Transport | None) -> None:
        """Send what is due before data: it may become more while that waits for room."""
        while self._unsent or self.connection.has_due:
            self._check_sendable()
            records = self._unsent + self.connection.seal_due()
            self._unsent = b""
            await self.below.send_all(memoryview(records), fed_by=fed_by)

    async def _send_records(self, data: memoryview, fed_by: Transport | None) -> int:
        """Send some of the data in one piece, and return how much; 0 if something is due first."""
        self._check_sendable()
        if self.connection.is_shut:
            raise _broken_pipe(self.connection.failure or "the stream was ended")
        buffer = _lend() if len(data) > _FEW_BYTES else memoryview(bytearray(2 * _FEW_BYTES))
        try:
            taken, length = self.connection.seal(data, buffer)
            await self.below.send_all(buffer[:length], fed_by=fed_by)
        finally:
            if len(buffer) == _BUFFER_BYTES:
                _give_back(buffer)
        return taken

    def _check_sendable(self) -> None:
        if self._is_cut:
            raise _broken_pipe("a record was cut off")

    async def send_eof(self, *, fed_by: Transport | None = None) -> None:
        self.connection.close()
        with suppress(OSError):  # receiving reports it
            await self.send_all(memoryview(b""), fed_by=fed_by)

    async def send_alert(self, alert: int, *, fed_by: Transport | None = None) -> None:
        """End the sending with a fatal alert, if it has not ended."""
        self.connection.alert(alert)
        with suppress(OSError):
            await self.send_all(memoryview(b""), fed_by=fed_by)

    def send_message(self, message: bytes) -> None:
        """Send a handshake message, such as a ticket: now, if there is room, or before other
        data."""
        self.connection.queue(message)
        self._send_due_nowait()

    def send_nowait(self, data: bytes) -> int | None:
        if self._sending.locked() or self._is_cut or self.connection.is_shut:
            return 0
        if not self._send_due_nowait() or self._unsent:
            return 0
        buffer = memoryview(bytearray(MAX_RECORD))
        taken, length = self.connection.seal(memoryview(data), buffer)
        self._unsent = bytes(buffer[:length])
        self._send_due_nowait()
        return taken

    def _send_due_nowait(self) -> bool:
        """Send what is due as far as there is room. False if the stream below cannot do so without
        waiting.

        Nothing is lost if another task is sending, or if there is no room: it is sent before other
        data.
        """
        if self._sending.locked() or self._is_cut:
            return True
        # What is due is sealed only once there is room: until then, one answer is enough for all
        # that ask.
        while records := self._unsent or self.connection.seal_due():
            sent: int | None = 0
            with suppress(OSError, trio.ClosedResourceError):  # receiving reports it
                sent = self.below.send_nowait(records)
            self._unsent = records[sent or 0 :]
            if not sent:
                return sent is not None
        return True

    async def _flush_unless_sending(self) -> None:
        """Reading does not wait until the far side reads. But a stream of OpenSSL's below cannot
        say whether it has room."""
        if (self._unsent or self.connection.has_due) and not self._send_due_nowait():
            with suppress(OSError):
                await self.send_all(memoryview(b""))

    def close(self) -> None:
        self._send_due_nowait()
        super().close()


def _lend() -> memoryview:
    return _buffers.pop() if _buffers else memoryview(bytearray(_BUFFER_BYTES))


def _give_back(buffer: memoryview) -> None:
    if len(_buffers) < _IDLE_BUFFERS:
        _buffers.append(buffer)


def _broken_pipe(reason: str) -> BrokenPipeError:
    return BrokenPipeError(errno.EPIPE, reason)
