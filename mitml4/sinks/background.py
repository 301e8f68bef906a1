"""Writes a format in the background: a bounded queue, and a thread that writes what is in it.

Theory of operation: `publish` appends to the queue, in which each flow has its share. A task takes
items from the queue in batches, and encodes and writes each batch in a thread, so that neither a
slow disk nor a reader that does not read delays a flow. An idle task writes an item as soon as it
comes; a busy one collects items for 10 ms. The reader of a pipe is monitored as well, so that its
end is noticed at once and not with the next item.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final, Generic

import trio

from mitml4.sinks.format import Format, Item
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
"""Between two batches: starting a thread's job costs more than an event."""
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
        self._news = trio.Event()
        self._has_news = False
        self._closing = False
        self._reader_gone = False
        self._timeout = trio.CancelScope()
        self._limiter = trio.CapacityLimiter(1)

    @property
    def dropped(self) -> int:
        return self._not_written + self._format.dropped

    def publish(self, event: Published) -> None:
        for item in self._format.take(event):
            flow, size, is_vital = self._format.weight(item)
            if not self._waiting.put(item, flow, size, is_vital=is_vital):
                self._not_written += 1
            elif not self._has_news:
                self._tell_news()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        failure: OSError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_reader)
            task_status.started()
            with self._timeout:
                try:
                    await self._write_what_comes()
                    await self._in_thread(self._format.finish)
                except OSError as error:
                    failure = error
            nursery.cancel_scope.cancel()
        self._let_go()
        if not self._timeout.cancelled_caught:
            try:
                self._format.file.close()
            except OSError as error:
                failure = failure or error
        if isinstance(failure, ConnectionError):  # a pipe's reader has gone, or a socket's
            raise BrokenPipeError from failure
        if failure:
            raise self._format.file.failure(failure) from failure

    async def aclose(self) -> None:
        """Write what is queued, for some seconds at most: the reader may never read."""
        self._closing = True
        self._timeout.deadline = trio.current_time() + _DRAIN_TIMEOUT_S
        self._tell_news()

    def _tell_news(self) -> None:
        self._has_news = True
        self._news.set()

    def _let_go(self) -> None:
        """Drop what is queued, and everything that follows."""
        self._not_written += len(self._waiting)
        self._waiting = FairQueue(Shares(0), Shares(0))

    async def _write_what_comes(self) -> None:
        """Until `aclose`, and until the queue is empty. Raises OSError."""
        while self._waiting or not self._closing:
            await self._news.wait()
            self._news, self._has_news = trio.Event(), False
            if self._reader_gone:
                raise BrokenPipeError
            while self._waiting:
                await self._write_batch(self._waiting.take(*self._batch))
            await trio.sleep(_GATHER_S)

    async def _write_batch(self, batch: list[Item]) -> None:
        try:
            await self._in_thread(lambda: self._format.write(batch))
        except trio.Cancelled:
            self._not_written += len(batch)
            raise

    async def _in_thread(self, job: Callable[[], None]) -> None:
        """Run a job in a thread; if the timeout ends while it blocks, it is abandoned."""
        await trio.to_thread.run_sync(job, abandon_on_cancel=True, limiter=self._limiter)

    async def _watch_reader(self) -> None:
        """Notice that the reader has gone, which a pipe reports to a writer only when it writes."""
        with select.epoll() as poll:
            try:
                # Without requested events it still reports EPOLLERR and EPOLLHUP (epoll_ctl(2)).
                poll.register(self._format.file.descriptor, 0)
            except PermissionError:  # a regular file
                return
            await trio.lowlevel.wait_readable(poll.fileno())
        self._reader_gone = True
        self._tell_news()
