"""Writes a format in the background: a bounded queue, and a thread that writes what is in it.

Theory of operation: `publish` appends to the queue, in which each flow has its share. A thread
takes items from the queue in batches, encodes them and writes them, so that neither a slow disk nor
a reader that does not read delays a flow. An idle thread is woken by the first item, and writes it
at once; a busy one collects items for 10 ms. It begins with the first item: a session has given up
its privileges by then, which a thread that had begun before could keep. The reader of a pipe is
monitored by a task, so that its end is noticed at once and not with the next item.
"""

from __future__ import annotations

import select
import time
from contextlib import suppress
from threading import Lock, Thread
from typing import Final, Generic

import trio

from mitml4.errors import MachineError
from mitml4.sinks.format import Format, Item
from mitml4.sinks.last_user import LastUser
from mitml4.sinks.shares import FairQueue, Shares
from mitml4.sinks.updates import Published

__all__ = ["Background"]

CAPACITY: Final = 32 << 20
"""Bytes that may wait. Items beyond a flow's share of them are dropped and counted."""
_VITAL_CAPACITY: Final = 256 << 20
"""The same for vital items, about 400,000 of them."""
_BATCH: Final = 128
"""Items. Encoding a batch holds the interpreter lock for about a millisecond."""
_BATCH_BYTES: Final = 256 << 10
_GATHER_S: Final = 0.01
"""Between two batches: waking a thread costs more than an event."""
_DRAIN_TIMEOUT_S: Final = 5.0


class Background(Generic[Item]):
    """A sink that writes a format as events come."""

    def __init__(
        self,
        output: Format[Item],
        *,
        capacity: int = CAPACITY,
        batch: tuple[int, int] = (_BATCH, _BATCH_BYTES),
    ) -> None:
        """The format and its file become ours. `batch`: how many items, and of how many bytes, are
        written at a time."""
        self.name = output.file.name
        self.wants = output.wants
        self._format = output
        self._batch = batch
        self._not_written = 0
        self._waiting = FairQueue[Item](Shares(capacity), Shares(_VITAL_CAPACITY))
        self._lock = Lock()
        """Held by who changes the queue."""
        self._being_written = 0
        """Items."""
        self._news = Lock()
        """What the thread waits for: locked until there is news for it."""
        self._news.acquire()
        self._has_news = False
        self._has_begun = trio.Event()
        self._has_ended = trio.Event()
        self._failure: Exception | None = None
        """Why the thread has ended early."""
        self._closing = False
        self._reader_gone = False
        self._is_abandoned = False
        self._timeout = trio.CancelScope()
        self._use = LastUser(self._close)

    @property
    def dropped(self) -> int:
        return self._not_written + self._format.dropped

    def publish(self, event: Published) -> None:
        for item in self._format.take(event):
            flow, size, is_vital = self._format.weight(item)
            with self._lock:
                is_kept = self._waiting.put(item, flow, size, is_vital=is_vital)
            if not is_kept:
                self._not_written += not self._is_unread
            elif not self._has_news:
                self._tell_news()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_reader)
            task_status.started()
            try:
                with self._timeout:
                    await self._has_begun.wait()
                    if self._start(trio.lowlevel.current_trio_token()):
                        await self._has_ended.wait()
            finally:
                self._let_go()
            nursery.cancel_scope.cancel()
        failure = self._failure
        if isinstance(failure, ConnectionError):  # a pipe's reader has gone, or a socket's
            raise BrokenPipeError from failure
        if isinstance(failure, OSError):
            raise self._format.file.failure(failure) from failure
        if failure:
            raise failure

    async def aclose(self) -> None:
        """Write what is queued, for some seconds at most: the reader may never read."""
        self._closing = True
        self._timeout.deadline = trio.current_time() + _DRAIN_TIMEOUT_S
        self._tell_news()

    @property
    def _is_unread(self) -> bool:
        """Whether its reader has gone: nobody misses what is not written any more."""
        return self._reader_gone or isinstance(self._failure, ConnectionError)

    def _tell_news(self) -> None:
        if not self._has_news:
            self._has_news = True
            self._news.release()
            self._has_begun.set()

    def _let_go(self) -> None:
        """Drop what is queued, and everything that follows. If the thread still writes, that is the
        last that it does, and it closes the file."""
        with self._lock:
            if not self._is_unread:
                self._not_written += len(self._waiting)
                if not self._has_ended.is_set():
                    self._not_written += self._being_written
            self._waiting = FairQueue(Shares(0), Shares(0))
            self._is_abandoned = True
        self._use.close()
        self._tell_news()

    def _close(self) -> None:
        try:
            self._format.close()
        except OSError as error:
            self._failure = self._failure or error

    def _start(self, token: trio.lowlevel.TrioToken) -> bool:
        """Start the thread. Returns whether there may be another one."""
        try:
            Thread(target=self._work, args=(token,), name="writer", daemon=True).start()
        except RuntimeError:
            self._failure = MachineError("cannot start a thread", hint="ulimit -u")
        return not self._failure

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        """The thread."""
        if not self._use.begin():
            return
        try:
            self._write_what_comes()
        except Exception as error:
            self._failure = error
        self._use.end()
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._has_ended.set)

    def _write_what_comes(self) -> None:
        """Until `aclose`, and until the queue is empty. Raises OSError."""
        while not self._is_abandoned:
            self._news.acquire()
            self._has_news = False
            if self._reader_gone:
                raise BrokenPipeError
            is_last = self._closing
            while batch := self._next_batch():
                self._format.write(batch)
            self._being_written = 0
            if is_last and not self._is_abandoned:
                self._format.finish()
                return
            time.sleep(_GATHER_S)

    def _next_batch(self) -> list[Item]:
        with self._lock:
            batch = self._waiting.take(*self._batch)
            self._being_written = len(batch)
            return batch

    async def _watch_reader(self) -> None:
        """Notice that the reader has gone, which a pipe reports to a writer only when it writes."""
        if self._is_abandoned:  # and closed
            return
        with select.epoll() as poll:
            try:
                # Without requested events it still reports EPOLLERR and EPOLLHUP (epoll_ctl(2)).
                poll.register(self._format.file.descriptor, 0)
            except PermissionError:  # a regular file
                return
            await trio.lowlevel.wait_readable(poll.fileno())
        self._reader_gone = True
        self._tell_news()
