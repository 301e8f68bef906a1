"""The second connection to a server, while the first one is kept."""

from __future__ import annotations

import gc
from weakref import ref

import pytest
import trio
import trio.testing

from mitml4.layers.redial import Redial
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.tasks import first_of

ANSWER_S, SPOKEN_S = 1.0, 0.25


@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "speaks"])
@pytest.mark.parametrize(("after_s", "is_in_time"), [(0.2, True), (0.5, False), (2.0, False)])
def test_the_second_connection_has_time_to_be_answered(
    speaks: bool, after_s: float, is_in_time: bool
) -> None:
    """Also where the server has sent data on the first one, as HTTP/2's servers do."""
    is_in_time = is_in_time or (not speaks and after_s < ANSWER_S)
    took: list[float] = []

    async def main() -> MemoryStream | None:
        first, far_of_first = memory_pair()
        second, far_of_second = memory_pair()

        async def dial() -> MemoryStream:
            await trio.lowlevel.checkpoint()
            return second

        async def answer() -> None:
            if speaks:
                await far_of_first.send_all(memoryview(b"settings"))
            await trio.sleep(after_s)
            await far_of_second.send_all(memoryview(b"hello"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            redial = Redial(dial=dial, adopt=lambda _stream: None)
            answered = await redial.connect_with(b"hello", first, ANSWER_S, SPOKEN_S)
            took.append(trio.current_time())
            nursery.cancel_scope.cancel()
        assert answered in (second, None)
        return second if answered else None

    clock = trio.testing.MockClock(autojump_threshold=0)
    answered = trio.run(main, clock=clock)
    assert bool(answered) == is_in_time
    assert took == [min(after_s, SPOKEN_S if speaks else ANSWER_S)]


def test_a_cancelled_connection_leaves_nothing_to_the_garbage_collector() -> None:
    class Held:
        """By the task that connects."""

    async def main() -> ref[Held]:
        async def dial() -> MemoryStream:
            held.append(ref(kept := Held()))
            await first_of(trio.sleep_forever, trio.sleep_forever)
            raise AssertionError(kept)

        held: list[ref[Held]] = []
        redial = Redial(dial=dial, adopt=lambda _stream: None)
        with trio.move_on_after(0.1):
            await redial.connect()
        return held[0]

    gc.collect()
    gc.disable()
    try:
        held = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        assert held() is None
    finally:
        gc.enable()
