"""Messages between a session and one of its workers, with descriptors attached.

A frame is its length, how many descriptors belong to it, and a pickle: a list of messages, which
are tuples whose first item is a name, and the places of those with a descriptor. Both ends are
processes of one session with the same privileges, so that one trusts what the other has pickled.

What must arrive soon is sent before this process next waits for events, so that messages of all
tasks share the system calls and the wake-up of the other end. The rest waits for ten milliseconds
at most.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import trio

__all__ = ["Channel", "Message", "channel_pair"]

Message: TypeAlias = tuple[Any, ...]

_HEAD: Final = struct.Struct("=IB")
_AT_ONCE: Final = 256 << 10
"""Bytes that are read at a time."""
_GATHER_S: Final = 0.01
_MANY: Final = 256
"""Messages that are sent at once, although none of them is urgent."""
_MANY_DESCRIPTORS: Final = 16
"""The same, and as many as a frame may have."""
_ROOM: Final = socket.CMSG_SPACE(4 * _MANY_DESCRIPTORS)
_LAST_S: Final = 2.0
"""How long the last messages may take."""

log = logging.getLogger(__name__)


class Channel(trio.abc.Instrument):
    """One end."""

    def __init__(self, sock: socket.socket) -> None:
        """The socket becomes ours."""
        sock.setblocking(False)
        self._socket = sock
        self._gathered: list[Message] = []
        self._attached: list[tuple[int, int]] = []
        """Places among them, and the descriptors that belong there."""
        self._is_urgent = False
        """Whether some of them must not wait."""
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        """What the socket has no room for, and the descriptors that go with it."""
        self.unsent_bytes = 0
        self._token: trio.lowlevel.TrioToken | None = None
        """None: it does not run."""
        self._news = trio.Event()
        self._all_sent = trio.Event()
        self._read = bytearray()
        self._descriptors: deque[list[int]] = deque()
        """Of each frame that has some, those that have come."""
        self._is_broken = False
        """Whether a frame could not be sent, or nobody reads any more."""

    def gather(self, message: Message) -> None:
        """Send it soon, behind all others."""
        self._gathered.append(message)
        if len(self._gathered) == 1:
            self._news.set()
        elif len(self._gathered) >= _MANY:
            self._flush()

    def send(self, *message: Any, descriptor: int | None = None) -> None:
        """Send it before this process waits for anything, behind all others; at once, as long as
        the channel does not run. The descriptor is closed here."""
        if descriptor is not None:
            self._attached.append((len(self._gathered), descriptor))
        self._gathered.append(message)
        self._is_urgent = True
        is_full = len(self._attached) == _MANY_DESCRIPTORS or len(self._gathered) >= _MANY
        if is_full or not self._token:
            self._flush()

    def before_io_wait(self, _timeout: float) -> None:
        """All tasks have had their turns. A task that is woken from here would wait, too."""
        if self._is_urgent:
            assert self._token
            self._flush(self._token)

    def _flush(self, token: trio.lowlevel.TrioToken | None = None) -> None:
        """`token`: where the task that sends the rest has to be woken by it."""
        if self._is_broken:
            self._break()
            return
        places = [place for place, _ in self._attached]
        descriptors = [descriptor for _, descriptor in self._attached]
        try:
            data = pickle.dumps((self._gathered, places), pickle.HIGHEST_PROTOCOL)
        except Exception:  # a fault of ours: it must end neither this process nor a flow that sends
            log.exception("a channel")
            self._break()
            return
        self._gathered.clear()
        self._attached.clear()
        self._is_urgent = False
        frame = memoryview(_HEAD.pack(len(data), len(descriptors)) + data)
        self._unsent.append((frame, descriptors))
        self.unsent_bytes += len(frame)
        if len(self._unsent) == 1:
            self._write()
        if self._unsent:
            token.run_sync_soon(self._news.set) if token else self._news.set()

    def _write(self) -> None:
        """As much as there is room for."""
        while self._unsent:
            frame, descriptors = self._unsent[0]
            attached = []
            if descriptors:
                packed = struct.pack(f"={len(descriptors)}i", *descriptors)
                attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]
            try:
                count = self._socket.sendmsg([frame], attached)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # too many are on their way: unix(7)
                    return
                self._break()
                return
            for each in descriptors:
                os.close(each)
            self.unsent_bytes -= count
            if count < len(frame):
                self._unsent[0] = frame[count:], ()
            else:
                self._unsent.popleft()

    def _break(self) -> None:
        """Send no more: what follows half a frame cannot be read. The other end reads the end."""
        self._is_broken = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        for _, descriptors in self._unsent:
            for each in descriptors:
                os.close(each)
        for _, each in self._attached:
            os.close(each)
        self._unsent.clear()
        self._gathered.clear()
        self._attached.clear()
        self._is_urgent = False
        self.unsent_bytes = 0

    async def run(self) -> None:
        """Send what was gathered, and what there was no room for. Until cancelled."""
        self._token = trio.lowlevel.current_trio_token()
        trio.lowlevel.add_instrument(self)
        try:
            await self._send_what_waits()
        finally:
            trio.lowlevel.remove_instrument(self)
            self._token = None

    async def _send_what_waits(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            if not self._unsent:
                await trio.sleep(_GATHER_S)
            if self._gathered:
                self._flush()
            while self._unsent:
                await trio.lowlevel.wait_writable(self._socket)
                self._write()
                if self._unsent and self._unsent[0][1]:
                    await trio.sleep(_GATHER_S)  # they may wait for those that are on their way
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
                _AT_ONCE, _ROOM, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return []
        except OSError:
            raise EOFError from None
        if not data:
            raise EOFError
        # The kernel ends a read behind bytes with descriptors.
        for _, _, content in ancillary:
            self._descriptors.append(list(struct.unpack(f"={len(content) // 4}i", content)))
        if flags & socket.MSG_CTRUNC and not ancillary:
            self._descriptors.append([])
        self._read += data
        return self._frames()

    def _frames(self) -> list[tuple[Message, int | None]]:
        found: list[tuple[Message, int | None]] = []
        start = 0
        with memoryview(self._read) as read:
            while len(read) >= start + _HEAD.size:
                length, has_descriptors = _HEAD.unpack_from(read, start)
                end = start + _HEAD.size + length
                if len(read) < end:
                    break
                messages, places = pickle.loads(read[start + _HEAD.size : end])
                first = len(found)
                found += [(each, None) for each in messages]
                if has_descriptors:
                    # The last ones are missing where this process may have no more.
                    for place, descriptor in zip(places, self._descriptors.popleft(), strict=False):
                        found[first + place] = messages[place], descriptor
                start = end
        del self._read[:start]
        return found

    async def finish(self) -> None:
        """Send everything, for some seconds at most; `run` does what has to wait."""
        if self._gathered:
            self._flush()
        if self._unsent:
            self._all_sent = trio.Event()
            with trio.move_on_after(_LAST_S):
                await self._all_sent.wait()

    def close(self) -> None:
        """Whoever waits for messages has to be cancelled before."""
        self._break()
        self._socket.close()
        for descriptors in self._descriptors:
            for each in descriptors:
                os.close(each)
        self._descriptors.clear()


def channel_pair() -> tuple[Channel, socket.socket]:
    """Our end, and a socket for the other. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours), theirs
