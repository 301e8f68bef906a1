"""Messages between a session and one of its workers, with descriptors attached.

A frame is its length, whether a descriptor belongs to it, and a pickled list of messages: tuples
whose first item is a name. Both ends are processes of one session with the same privileges, so that
one trusts what the other has pickled. A descriptor belongs to the last message of its frame.

What must arrive soon is sent at once, with what has waited before it; the rest waits for a few
milliseconds, so that many events share the system calls and the wake-up of the other end.
"""

from __future__ import annotations

import errno
import os
import pickle
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import Any, Final, TypeAlias

import trio

__all__ = ["Channel", "Message", "channel_pair"]

Message: TypeAlias = tuple[Any, ...]

_HEAD: Final = struct.Struct("=I?")
_AT_ONCE: Final = 256 << 10
"""Bytes that are read at a time."""
_GATHER_S: Final = 0.004
_MANY: Final = 128
"""Messages that are sent at once, although none of them is urgent."""
_ONE_DESCRIPTOR: Final = socket.CMSG_SPACE(4)
_LAST_S: Final = 2.0
"""How long the last messages may take."""


class Channel:
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        """The socket becomes ours."""
        sock.setblocking(False)
        self._socket = sock
        self._gathered: list[Message] = []
        self._unsent: deque[tuple[memoryview, int | None]] = deque()
        """What the socket has no room for, and the descriptors that go with it."""
        self.unsent_bytes = 0
        self._news = trio.Event()
        self._all_sent = trio.Event()
        self._read = bytearray()
        self._descriptors: deque[int | None] = deque()
        self._is_broken = False
        """Whether a frame could not be sent, or nobody reads any more."""

    def gather(self, message: Message) -> None:
        """Send it soon, behind all others."""
        self._gathered.append(message)
        if len(self._gathered) == 1:
            self._news.set()
        elif len(self._gathered) >= _MANY:
            self._flush(None)

    def send(self, *message: Any, descriptor: int | None = None) -> None:
        """Send it at once, behind all others. The descriptor is closed here."""
        self._gathered.append(message)
        self._flush(descriptor)

    def _flush(self, descriptor: int | None) -> None:
        data = pickle.dumps(self._gathered, pickle.HIGHEST_PROTOCOL)
        self._gathered.clear()
        frame = memoryview(_HEAD.pack(len(data), descriptor is not None) + data)
        self._unsent.append((frame, descriptor))
        self.unsent_bytes += len(frame)
        if self._is_broken:
            self._break()
        elif len(self._unsent) == 1:
            self._write()
        if self._unsent:
            self._news.set()

    def _write(self) -> None:
        """As much as there is room for."""
        while self._unsent:
            frame, descriptor = self._unsent[0]
            attached = []
            if descriptor is not None:
                attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", descriptor))]
            try:
                count = self._socket.sendmsg([frame], attached)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # too many are on their way: unix(7)
                    return
                self._break()
                return
            if descriptor is not None:
                os.close(descriptor)
            self.unsent_bytes -= count
            if count < len(frame):
                self._unsent[0] = frame[count:], None
            else:
                self._unsent.popleft()

    def _break(self) -> None:
        """Send no more: what follows half a frame cannot be read. The other end reads the end."""
        self._is_broken = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        for _, descriptor in self._unsent:
            if descriptor is not None:
                os.close(descriptor)
        self._unsent.clear()
        self.unsent_bytes = 0

    async def run(self) -> None:
        """Send what was gathered, and what there was no room for. Until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            if not self._unsent:
                await trio.sleep(_GATHER_S)
            if self._gathered:
                self._flush(None)
            while self._unsent:
                await trio.lowlevel.wait_writable(self._socket)
                self._write()
                if self._unsent and self._unsent[0][1] is not None:
                    await trio.sleep(_GATHER_S)  # it may wait for those that are on their way
            self._all_sent.set()

    async def receive(self) -> list[tuple[Message, int | None]]:
        """The next messages, each with its descriptor; None: there is none, or this process may
        have no more. Empty at the end."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                found = self.receive_nowait()
            except EOFError:
                return []
            if found:
                return found

    def receive_nowait(self) -> list[tuple[Message, int | None]]:
        """The same, as far as they have come. Raises EOFError at the end."""
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _AT_ONCE, _ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return []
        except OSError:
            raise EOFError from None
        if not data:
            raise EOFError
        # The kernel ends a read behind bytes with a descriptor.
        for _, _, content in ancillary:
            self._descriptors += struct.unpack("=i", content[:4])
        if flags & socket.MSG_CTRUNC and not ancillary:
            self._descriptors.append(None)
        self._read += data
        return self._frames()

    def _frames(self) -> list[tuple[Message, int | None]]:
        found: list[tuple[Message, int | None]] = []
        start = 0
        with memoryview(self._read) as read:
            while len(read) >= start + _HEAD.size:
                length, has_descriptor = _HEAD.unpack_from(read, start)
                end = start + _HEAD.size + length
                if len(read) < end:
                    break
                messages: list[Message] = pickle.loads(read[start + _HEAD.size : end])
                found += ((each, None) for each in messages)
                if has_descriptor:
                    found[-1] = found[-1][0], self._descriptors.popleft()
                start = end
        del self._read[:start]
        return found

    async def finish(self) -> None:
        """Send everything, for some seconds at most; `run` does what has to wait."""
        if self._gathered:
            self._flush(None)
        if self._unsent:
            self._all_sent = trio.Event()
            with trio.move_on_after(_LAST_S):
                await self._all_sent.wait()

    def close(self) -> None:
        """Whoever waits for messages has to be cancelled before."""
        self._break()
        self._socket.close()
        while self._descriptors:
            if (descriptor := self._descriptors.popleft()) is not None:
                os.close(descriptor)


def channel_pair() -> tuple[Channel, socket.socket]:
    """Our end, and a socket for the other. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
