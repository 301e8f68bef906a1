"""Tasks that wait for one of several things, for two, or for some time."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TypeVar

import trio

__all__ = ["both", "fail_after", "first_of"]

T = TypeVar("T")
U = TypeVar("U")


async def first_of(
    own: Callable[[], Awaitable[T]],
    *others: Callable[[], Awaitable[object]],
    when: Callable[[Callable[[], None]], AbstractContextManager[None]] | None = None,
    timeout_s: float = math.inf,
) -> T | None:
    """Until one of them is done or has failed; the others are stopped, and its error raised.

    Returns the result of the first one, or None if it was not that one. It runs in the task that
    asks, which is cheaper than another. `when`: a context that calls, once, when the others begin
    to have something to do, and they start only then; None: they start at once.

    Raises TooSlowError if none of them is done within `timeout_s`.
    """
    failures: list[Exception] = []
    result: T | None = None
    is_done = False

    async def guarded(work: Callable[[], Awaitable[object]]) -> None:
        nonlocal is_done
        try:
            await work()
        except Exception as error:
            failures.append(error)
        is_done = True
        if nursery.child_tasks:
            nursery.cancel_scope.cancel()

    async def run_own() -> None:
        nonlocal result
        result = await own()

    def start() -> None:
        for work in others:
            nursery.start_soon(guarded, work)

    async with trio.open_nursery() as nursery:
        if timeout_s < math.inf:
            nursery.cancel_scope.deadline = trio.current_time() + timeout_s
        if when is None:
            start()
        with when(start) if when else nullcontext():
            await guarded(run_own)
    if failures:
        try:
            raise failures[0]
        finally:
            failures.clear()
    if not is_done:
        raise trio.TooSlowError
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


class fail_after:  # noqa: N801  # as Trio's is called
    """Raises TooSlowError when the time is up, as `trio.fail_after`. That one is a generator, which
    Python 3.12 (up to 2025 also later ones: gh-100964) keeps alive with all that has waited."""

    __slots__ = ("_scope", "_timeout_s")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def __enter__(self) -> None:
        self._scope = trio.move_on_after(self._timeout_s)
        self._scope.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scope.__exit__(kind, error, traceback)
        if self._scope.cancelled_caught:
            raise trio.TooSlowError
