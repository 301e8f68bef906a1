"""Detect at once that a connection is reset or ends, while nothing reads from it.

trio cannot wait for that in two cases: a socket that has ended is always readable, and so is one
that has more data than its sink takes. A second epoll can: registered for no events, it reports
EPOLLERR and EPOLLHUP (epoll_ctl(2)); for EPOLLRDHUP, also the end of what the far side sends. There
is one for all connections, and a watch costs two system calls, no descriptor, and no task.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

__all__ = ["ENDED", "READABLE", "Watched"]

READABLE: Final = select.EPOLLIN
ENDED: Final = select.EPOLLRDHUP
_ALWAYS: Final = select.EPOLLERR | select.EPOLLHUP
"""It was reset, or has ended both ways."""


class Watched:
    """While the block runs, `call` is called once: when the connection is reset, or has ended both
    ways, or one of the events happens. It runs in another task and must not raise.

    If the kernel cannot watch more descriptors, it is not called: the next send reports a reset.
    """

    __slots__ = ("call", "descriptor", "events", "is_called", "watch")

    def __init__(self, descriptor: int, call: Callable[[], None], events: int = 0) -> None:
        self.descriptor = descriptor
        self.call = call
        self.events = events
        self.is_called = False

    def __enter__(self) -> None:
        self.watch = _watch()
        if self.watch:
            self.watch.begin(self)

    def __exit__(self, *_: object) -> None:
        if self.watch:
            self.watch.end(self)


class _Watch:
    """The epoll, and who is to be called."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, list[Watched]] = {}

    async def run(self) -> None:
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for descriptor, events in self._epoll.poll(0):
                    self._tell(descriptor, events)

    def _tell(self, descriptor: int, events: int) -> None:
        """Call those who watch for these events. The others still wait for theirs."""
        for each in self._watched.get(descriptor, ()):
            if not each.is_called and events & (each.events | _ALWAYS):
                each.is_called = True
                each.call()
        self._arm(descriptor)

    def begin(self, watched: Watched) -> None:
        descriptor = watched.descriptor
        self._watched.setdefault(descriptor, []).append(watched)
        try:  # `suppress` would cost three calls for each watch
            self._epoll.register(descriptor, watched.events | select.EPOLLONESHOT)
        except FileExistsError:  # another task watches the same
            self._arm(descriptor)
        except OSError:
            pass  # the next send reports a reset

    def _arm(self, descriptor: int) -> None:
        """Wait for the events of all who have not been called."""
        waiting = [each.events for each in self._watched.get(descriptor, ()) if not each.is_called]
        if waiting:
            events = select.EPOLLONESHOT
            for each in waiting:
                events |= each
            with suppress(OSError):
                self._epoll.modify(descriptor, events)

    def end(self, watched: Watched) -> None:
        descriptor = watched.descriptor
        others = self._watched[descriptor]
        others.remove(watched)
        if not others:
            del self._watched[descriptor]
            try:  # noqa: SIM105 - as above
                self._epoll.unregister(descriptor)
            except OSError:
                pass  # it is closed


_of_this_run: Final[trio.lowlevel.RunVar[_Watch]] = trio.lowlevel.RunVar("resets")


def _watch() -> _Watch | None:
    """The watch of this trio run; None if there is no descriptor for it. It lives as long as the
    run."""
    try:
        return _of_this_run.get()
    except LookupError:
        pass
    try:
        watch = _Watch()
    except OSError:
        return None
    _of_this_run.set(watch)
    trio.lowlevel.spawn_system_task(watch.run)
    return watch
