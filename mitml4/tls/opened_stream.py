"""A byte stream inside TLS, whichever library does the TLS: reading, and how it ends.

How the far side ended is kept apart: close_notify is the end of the stream; TCP's FIN without it
raises StreamTruncated; a reset, ConnectionResetError; a fatal alert or a broken record, TlsFailure.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Final

import trio

from mitml4.net.stream import Stream, StreamTruncated, Transport
from mitml4.protocols.conversation import MAX_PEEK

__all__ = ["OpenedStream"]

_RECORDS_A_TURN: Final = 32
"""After so many, other tasks run: a record may hold one byte, or none."""
_SCRATCH: Final = memoryview(bytearray(MAX_PEEK + 1))


class OpenedStream(Stream):
    """The plaintext of a TLS connection over the stream `below`, which it owns."""

    below: Stream

    def __init__(self, below: Stream) -> None:
        self.below = below
        self._transport = below.transport
        self._ahead = b""
        """What was read and not consumed."""
        self.failure: Exception | None = None
        """What ended the stream, if not close_notify; every later read raises it."""
        self.on_opening: Callable[[int | Exception], None] | None = None
        """Called once with what comes first after the handshake: a number of bytes, 0 for
        close_notify, or the error that ended the stream."""

    @property
    def transport(self) -> Transport:
        return self._transport

    @abstractmethod
    def on_certificate_request(self, call: Callable[[], None]) -> None:
        """Call this when the server asks for a certificate after the handshake."""

    @abstractmethod
    def _read_record(self, buffer: memoryview) -> int | None:
        """Read at most one record. Returns 0 at close_notify, None if there is none yet.

        Raises what ends the stream: StreamTruncated, TlsFailure, OSError. It is not called again
        then.
        """

    @abstractmethod
    def _has_unread(self) -> bool:
        """Whether there is ciphertext that has not been read."""

    @abstractmethod
    async def _wait_readable(self) -> None:
        """Wait until there may be something to read."""

    async def _flush_unless_sending(self) -> None:
        """Send the ciphertext that reading has produced, unless another task is sending.

        That task sends it too. It may have to wait until the far side reads, and reading must not
        wait for that.
        """

    async def peek(self, beyond: int, limit: int) -> bytes:
        while len(self._ahead) <= beyond:
            count = self._read_ahead(limit)
            if count == 0:
                break
            if count is None:
                await self._flush_unless_sending()
                await self._wait_readable()
            elif len(self._ahead) <= beyond:
                await trio.lowlevel.checkpoint()
        return self._ahead[:limit]

    def peek_nowait(self, limit: int) -> bytes:
        if not self.failure:
            try:  # noqa: SIM105 - `suppress` costs three calls for each message
                self._read_ahead(limit)
            except (OSError, StreamTruncated):
                pass  # it is kept, and raised by the next read
        return self._ahead if len(self._ahead) <= limit else self._ahead[:limit]

    def peek_available(self, limit: int) -> bytes | None:
        if self._ahead:
            return self.peek_nowait(limit)
        count = self._read_ahead(limit)
        return self._ahead[:limit] if count else None if count is None else b""

    def _read_ahead(self, limit: int) -> int | None:
        """Read more until there are `limit` bytes, and keep it; see `_read_records`."""
        count = self._read_records(_SCRATCH[: max(0, limit - len(self._ahead))])
        if count:
            self._ahead += bytes(_SCRATCH[:count])
        return count

    def discard(self, count: int) -> None:
        self._ahead = self._ahead[count:]

    def receive_nowait(self, buffer: memoryview) -> int | None:
        if self._ahead:
            count = min(len(buffer), len(self._ahead))
            buffer[:count] = self._ahead[:count]
            self._ahead = self._ahead[count:]
            return count
        return self._read_records(buffer)

    def _read_records(self, buffer: memoryview) -> int | None:
        """Read the available plaintext into a buffer, up to `_RECORDS_A_TURN` records, since many
        may be empty. Returns 0 at close_notify, None if there is nothing yet."""
        filled = 0
        for _ in range(_RECORDS_A_TURN):
            if filled == len(buffer):
                break
            taken = self._read(buffer[filled:] if filled else buffer, quietly=filled > 0)
            if taken:
                filled += taken
            elif filled or taken == 0 or not self._has_unread():
                return filled or taken
        return filled or None

    def _read(self, buffer: memoryview, *, quietly: bool = False) -> int | None:
        """Read at most one record. Returns 0 at close_notify, None if there is none yet.

        A copy of an error is kept, and every later call raises another one. With `quietly`, this
        call only keeps it, because the caller still has to return bytes that came before it. (A
        copy, because an exception refers to the frames that it passed through, and those to this
        stream.)
        """
        if self.failure:
            raise copy(self.failure)
        count: int | None = None
        try:
            count = self._read_record(buffer)
        except (StreamTruncated, OSError) as failure:
            self.failure = copy(failure)
            self._note_opening(self.failure)
            if not quietly:
                raise
        if self.on_opening and count is not None:
            self._note_opening(count)
        return count

    def _note_opening(self, first: int | Exception) -> None:
        if self.on_opening:
            self.on_opening(first)
            self.on_opening = None

    def abort(self) -> None:
        self.below.abort()

    def close(self) -> None:
        self.below.close()
