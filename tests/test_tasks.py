"""Two tasks at the same time: the results of both, or the first error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from mitml4.tasks import both


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
