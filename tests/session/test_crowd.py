"""How many connections there may be, and which begins next."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio

from mitml4.address import Address
from mitml4.session.flows.crowd import Crowd, Limits, QueuedConnection

GIB = 1 << 30


@dataclass(frozen=True)
class Came:
    """A connection, as far as a crowd asks."""

    destination: Address
    number: int


def came(client: str, port: int = 443, number: int = 0, *, alone: bool = False) -> QueuedConnection:
    connection = Came(Address("192.0.2.9", port), number)
    return QueuedConnection(connection, None, client, is_only_client=alone)  # type: ignore[arg-type]


def crowd(carried: int = 16, looked_at: int = 8) -> Crowd:
    return Crowd(Limits(carried, looked_at, pipes=0, descriptors=100))


def test_limits_follow_from_descriptors_and_memory() -> None:
    for descriptors in (64, 400, 1024, 65_536, 1 << 20):
        limits = Limits.of(descriptors, 8 * GIB)
        taken = 2 * limits.carried + 2 * limits.pipes
        assert 0 < taken < descriptors
        assert taken >= descriptors // 4 or limits.carried == 2 * GIB // 32768
        assert 0 < limits.looked_at <= max(1, limits.carried // 2)
    assert Limits.of(1 << 20, GIB).looked_at == 1024
    assert Limits.of(1 << 20, GIB).carried == 8192


def test_a_client_gets_half_and_half_of_that_towards_one_server() -> None:
    full = crowd(16)
    assert [full.enter(came("192.0.2.1")) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [full.enter(came("192.0.2.1", 80)) for _ in range(6)] == [True] * 4 + [False] * 2
    assert not full.enter(came("192.0.2.1", 25))
    assert [full.enter(came("192.0.2.2")) for _ in range(5)] == [True] * 4 + [False]
    assert [full.enter(came("192.0.2.3")) for _ in range(5)] == [True] * 4 + [False]
    assert not full.enter(came("192.0.2.4"))  # there is nothing left


def test_where_there_is_one_client_it_may_have_all_but_half_towards_one_server() -> None:
    full = crowd(16)
    assert [full.enter(came("run", alone=True)) for _ in range(9)] == [True] * 8 + [False]
    assert [full.enter(came("run", 80, alone=True)) for _ in range(9)] == [True] * 8 + [False]


def test_what_has_ended_makes_room() -> None:
    full = crowd(4, 4)
    one = came("192.0.2.1")
    assert full.enter(one)
    assert full.look_at(one)
    assert not full.enter(one)
    assert not full.look_at(one)
    full.leave(one, looked_at=True)
    assert full.enter(one)
    assert full.look_at(one)
    full.leave(one, looked_at=False)
    assert not full.look_at(one)


async def begin(waiting: Crowd, count: int) -> list[list[int]]:
    """The numbers of those that begin, turn by turn."""
    turns: list[list[int]] = []
    with trio.fail_after(5):
        while sum(map(len, turns)) < count:
            turns.append([each.connection.number for each in await waiting.next()])  # type: ignore[attr-defined]
    return turns


async def test_a_crowd_that_is_alone_begins_at_once() -> None:
    waiting = crowd(1024)
    for number in range(20):
        assert waiting.enter(came("192.0.2.1", number=number))
    assert await begin(waiting, 20) == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]


@pytest.mark.parametrize("other", [came("192.0.2.2"), came("192.0.2.1", 80)])
async def test_a_crowd_is_let_in_one_by_one_where_there_is_somebody_else(
    other: QueuedConnection,
) -> None:
    """Who came first, though his connection is open and idle, or last."""
    waiting = crowd(1024)
    assert waiting.enter(other)
    assert await begin(waiting, 1) == [[0]]
    for number in range(1, 100):
        assert waiting.enter(came("192.0.2.1", number=number))
    assert waiting.enter(other)
    assert (await begin(waiting, 4))[:3] == [[1, 0], [2], [3]]
    waiting.leave(other, looked_at=False)
    waiting.leave(other, looked_at=False)
    assert len((await begin(waiting, 1))[0]) == 8


async def test_who_waits_is_woken_by_who_comes(autojump_clock) -> None:
    waiting = crowd()
    with trio.move_on_after(1):
        await waiting.next()
    assert trio.current_time() >= 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin, waiting, 1)
        await trio.testing.wait_all_tasks_blocked()
        waiting.enter(came("192.0.2.1"))
    waiting.enter(came("192.0.2.1", number=7))
    assert [each.connection.number for each in waiting.all_waiting()] == [7]  # type: ignore[attr-defined]
    assert list(waiting.all_waiting()) == []
