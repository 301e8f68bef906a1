"""What a flow keeps in memory while nothing moves in it."""

from __future__ import annotations

import socket
import tracemalloc

import trio
import trio.testing

from mitml4.layers.converse import Follower
from mitml4.protocols.conversation import PEEK
from tests.layers.test_turns import CONTEXT, Units, bridged

_UNIT = 50_000


async def test_a_lane_that_waits_keeps_nothing_of_the_last_message() -> None:
    """A message is shown whole before it moves, and may be long."""

    async def move(near: socket.socket, far: socket.socket) -> None:
        near.sendall(bytes(_UNIT))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(far.recv(2 * _UNIT, socket.MSG_WAITALL | socket.MSG_DONTWAIT)) == _UNIT
        await trio.testing.wait_all_tasks_blocked(0.01)

    with bridged() as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                Follower(ends.bridge, CONTEXT).follow, Units(up=PEEK, unit=_UNIT), "client"
            )
            await trio.testing.wait_all_tasks_blocked()
            tracemalloc.start()
            try:
                await move(ends.client, ends.server)
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            nursery.cancel_scope.cancel()
    assert kept < _UNIT
