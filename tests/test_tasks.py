"""Two tasks at the same time: the results of both, or the first error. And time that is up."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from weakref import ref

import pytest
import trio

from mitml4.tasks import both, fail_after


def after(seconds: float, value: str, *, fails: bool = False) -> Callable[[], Awaitable[str]]:
    async def work() -> str:
        await trio.sleep(seconds)
        if fails:
            raise ValueError(value)
        return value

    return work


@pytest.mark.parametrize(("one", "other"), [(1, 3), (3, 1), (2, 2), (0, 1)])
async def test_both_results_take_as_long_as_the_longer(autojump_clock, one, other) -> None:
    assert await both(after(one, "a"), after(other, "b")) == ("a", "b")
    assert trio.current_time() == pytest.approx(max(one, other), abs=0.001)


@pytest.mark.parametrize("fails", [0, 1])
@pytest.mark.parametrize("at", [1, 5])
async def test_an_error_of_one_stops_the_other_or_comes_after_it(autojump_clock, fails, at) -> None:
    works = [after(3, "result"), after(3, "result")]
    works[fails] = after(at, "fault", fails=True)
    with pytest.raises(ValueError, match="fault"):
        await both(*works)
    assert trio.current_time() == pytest.approx(at, abs=0.001)


async def test_time_that_is_up_leaves_nothing_to_the_garbage_collector(autojump_clock) -> None:
    class Held:
        """By what has no time left."""

    async def wait() -> None:
        held.append(ref(kept := Held()))
        await trio.sleep_forever()
        raise AssertionError(kept)

    held: list[ref[Held]] = []
    gc.collect()
    gc.disable()
    try:
        try:  # pytest.raises would keep the error
            with fail_after(1):
                await wait()
        except trio.TooSlowError:
            pass
        assert trio.current_time() == pytest.approx(1, abs=0.001)
        await trio.lowlevel.checkpoint()  # until then Trio has the error, too
        assert held[0]() is None
    finally:
        gc.enable()


async def test_what_is_done_or_fails_in_time_is_as_without_a_limit(autojump_clock) -> None:
    with fail_after(2):
        await trio.sleep(1)
    with pytest.raises(ValueError, match="fault"), fail_after(2):
        await after(1, "fault", fails=True)()
    with trio.move_on_after(1) as outer, fail_after(2):
        await trio.sleep_forever()
    assert outer.cancelled_caught
