"""Detect a reset at once while nothing reads from the connection.

trio cannot wait for one in two cases: a socket that has ended is always readable, and so is one
that has more data than its sink takes. A second epoll can: registered for no events, it reports
EPOLLERR and EPOLLHUP (epoll_ctl(2)). There is one for all connections, and a wait costs two system
calls and no descriptor.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

__all__ = ["until_reset"]


@contextmanager
def until_reset(descriptor: int) -> Iterator[trio.CancelScope]:
    """Cancel the block when the connection is reset, or has ended both ways.

    If the kernel cannot watch more descriptors, the block is not cancelled: the next send reports
    the reset.
    """
    watch = _watch()
    with trio.CancelScope() as scope:
        if watch is None:
            yield scope
            return
        watch.begin(descriptor, scope)
        try:
            yield scope
        finally:
            watch.end(descriptor, scope)


class _Watch:
    """The epoll, and the scopes to cancel."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._scopes: dict[int, list[trio.CancelScope]] = {}

    async def run(self) -> None:
        with self._epoll:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for descriptor, _ in self._epoll.poll(0):
                    for scope in self._scopes.get(descriptor, ()):
                        scope.cancel()

    def begin(self, descriptor: int, scope: trio.CancelScope) -> None:
        self._scopes.setdefault(descriptor, []).append(scope)
        with suppress(OSError):
            try:
                self._epoll.register(descriptor, select.EPOLLONESHOT)
            except FileExistsError:  # another task waits for the same, and may have been woken
                self._epoll.modify(descriptor, select.EPOLLONESHOT)

    def end(self, descriptor: int, scope: trio.CancelScope) -> None:
        scopes = self._scopes[descriptor]
        scopes.remove(scope)
        if not scopes:
            del self._scopes[descriptor]
            with suppress(OSError):  # it is closed
                self._epoll.unregister(descriptor)


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
