"""Memory that flows share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mitml4.sinks.shares import FairQueue, Shares


def test_there_is_room_for_a_flow_that_has_little_whatever_the_others_take() -> None:
    shares = Shares(1000)
    for flow in range(8):
        while shares.take(flow, 1):
            pass
        assert shares.total < 1000
        assert shares.take(100 + flow, 1)


def test_what_is_given_back_is_free() -> None:
    shares = Shares(100)
    assert shares.take(1, 50)
    assert not shares.take(1, 1)
    shares.give_back(1, 50)
    assert (shares.total, shares._held) == (0, {})
    assert shares.take(1, 50)


Put = tuple[int, int, bool]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 50), st.booleans())))
def test_items_leave_in_their_order_and_nothing_is_counted_then(puts: list[Put]) -> None:
    queue = FairQueue[int](Shares(100), Shares(10_000))
    expected = [
        number
        for number, (flow, size, vital) in enumerate(puts)
        if queue.put(number, flow, size, is_vital=vital)
    ]
    assert {number for number, put in enumerate(puts) if put[2]} <= set(expected)
    taken: list[int] = []
    while len(queue):
        batch = queue.take(3, 60)
        assert 1 <= len(batch) <= 3
        taken += batch
    assert taken == expected
    assert queue.shares == Shares(100)
    assert queue.vital == Shares(10_000)
