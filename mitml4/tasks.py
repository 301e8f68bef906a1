"""Tasks that wait for one of several things, or for two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import trio

__all__ = ["both", "first_of"]

T = TypeVar("T")
U = TypeVar("U")


async def first_of(
    own: Callable[[], Awaitable[T]],
    *others: Callable[[], Awaitable[object]],
    when: Callable[[Callable[[], None]], AbstractContextManager[None]] | None = None,
) -> T | None:
    """Until one of them is done or has failed; the others are stopped, and its error raised.

    Returns the result of the first one, or None if it was not that one. It runs in the task that
    asks, which is cheaper than another. `when`: a context that calls, once, when the others begin
    to have something to do, and they start only then; None: they start at once.
    """
    failures: list[Exception] = []
    result: T | None = None

    async def guarded(work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except Exception as error:
            failures.append(error)
        nursery.cancel_scope.cancel()

    async def run_own() -> None:
        nonlocal result
        result = await own()

    def start() -> None:
        for work in others:
            nursery.start_soon(guarded, work)

    async with trio.open_nursery() as nursery:
        if when is None:
            start()
        with when(start) if when else nullcontext():
            await guarded(run_own)
    if failures:
        try:
            raise failures[0]
        finally:
            failures.clear()
    return result


async def both(one: Callable[[], Awaitable[T]], other: Callable[[], Awaitable[U]]) -> tuple[T, U]:
    """The results of both, which run at the same time. If one fails, the other is stopped, and the
    error raised."""
    results: list[T] = []
    others: list[U] = []
    done = trio.Event()

    async def run_one() -> None:
        results.append(await one())
        await done.wait()

    async def run_other() -> None:
        others.append(await other())
        done.set()
        await trio.sleep_forever()

    await first_of(run_one, run_other)
    return results[0], others[0]
