"""JSON lines: every event as it comes, one a line, to standard output or a file.

Theory of operation: `publish` appends to a bounded queue; a writer takes what is there, a batch at
a time, and encodes and writes it in a thread, so that neither a slow disk nor a reader that stands
still holds a flow up. An idle writer writes an event as soon as it comes, a busy one what has come
within 10 ms. A pipe is watched as well: when its reader goes, that is known at once, not with the
next event.
"""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from pathlib import Path
from typing import Final

import trio

from mitml4.errors import MitmError
from mitml4.events import Event, encode
from mitml4.sinks.files import open_file, write_all, write_failure

__all__ = ["JsonLines"]

CAPACITY: Final = 65_536
"""Events that may wait; more are dropped, and counted."""
_BATCH: Final = 128
"""Encoding one takes about a millisecond of the interpreter's time, which the flows wait for."""
_GATHER_S: Final = 0.01
"""After a write, the next gathers what comes: going to a thread costs more than an event does."""
_LAST_WORDS_S: Final = 5.0


class JsonLines:
    """A sink that writes JSON lines."""

    def __init__(
        self, descriptor: int, name: str, *, close: bool = True, capacity: int = CAPACITY
    ) -> None:
        """`name` is what errors call it. `close`: whether the descriptor is ours to close."""
        self.dropped = 0
        self._descriptor = descriptor
        self._name = name
        self._close = close
        self._capacity = capacity
        self._waiting: deque[Event] = deque()
        self._news = trio.Event()
        self._closing = False
        self._reader_gone = False
        self._patience = trio.CancelScope()
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    def to_stdout(cls) -> JsonLines:
        """Raises MitmError where whoever started us has closed it."""
        if sys.stdout is None:
            raise MitmError("standard output is closed", hint="the events go there, as in: … | jq")
        return cls(sys.stdout.fileno(), "standard output", close=False)

    @classmethod
    def to_stderr(cls) -> JsonLines:
        return cls(sys.stderr.fileno(), "standard error", close=False)

    @classmethod
    def to_file(cls, path: Path) -> JsonLines:
        """Into a file, over what was in it. Raises MitmError."""
        return cls(open_file(path), str(path))

    def publish(self, event: Event) -> None:
        if len(self._waiting) >= self._capacity:
            self.dropped += 1
            return
        self._waiting.append(event)
        self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        failure: OSError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_reader)
            task_status.started()
            with self._patience:
                try:
                    await self._write_what_comes()
                except OSError as error:
                    failure = error
            nursery.cancel_scope.cancel()
        if self._patience.cancelled_caught:
            self.dropped += len(self._waiting)
        elif self._close:
            os.close(self._descriptor)
        if isinstance(failure, BrokenPipeError):
            raise failure
        if failure:
            raise write_failure(self._name, failure) from failure

    async def aclose(self) -> None:
        """Write what is kept, for some seconds at most: the reader may stand still for good."""
        self._closing = True
        self._patience.deadline = trio.current_time() + _LAST_WORDS_S
        self._news.set()

    async def _write_what_comes(self) -> None:
        """Until closing, with nothing left. Raises OSError."""
        while self._waiting or not self._closing:
            await self._news.wait()
            self._news = trio.Event()
            if self._reader_gone:
                raise BrokenPipeError
            while self._waiting:
                count = min(len(self._waiting), _BATCH)
                batch = [self._waiting.popleft() for _ in range(count)]
                await self._write(batch)
            await trio.sleep(_GATHER_S)

    async def _write(self, batch: list[Event]) -> None:
        """In a thread, which is left to itself if patience ends while the write is stuck."""
        try:
            await trio.to_thread.run_sync(
                self._write_now, batch, abandon_on_cancel=True, limiter=self._limiter
            )
        except trio.Cancelled:
            self.dropped += len(batch)
            raise

    def _write_now(self, batch: list[Event]) -> None:
        lines = "".join(f"{encode(event)}\n" for event in batch)
        write_all(self._descriptor, lines.encode("utf-8", "backslashreplace"))

    async def _watch_reader(self) -> None:
        """Notice that nobody reads any more, which a pipe tells a writer only when it writes."""
        with select.epoll() as poll:
            try:
                # Asked for nothing, it reports EPOLLERR and EPOLLHUP (epoll_ctl(2)).
                poll.register(self._descriptor, 0)
            except PermissionError:  # a regular file
                return
            await trio.lowlevel.wait_readable(poll.fileno())
        self._reader_gone = True
        self._news.set()
