"""A copy is shown before it moves, since the answer to it may come at once."""

from __future__ import annotations

from mitml4.layers.lane import Lane
from mitml4.layers.relay import Relay
from mitml4.net.memory import memory_pair


async def test_a_copy_is_shown_before_it_moves() -> None:
    client, source = memory_pair()
    sink, server = memory_pair()
    moved_when_shown: list[tuple[bytes, bytes]] = []

    async def show(data: bytes) -> None:
        moved_when_shown.append((data, server.peek_nowait(100)))

    lane = Lane(source, sink, Relay())
    for piece in (b"one", b"two"):
        await client.send_all(memoryview(piece))
        await lane.mirror(show)
    assert moved_when_shown == [(b"one", b""), (b"two", b"one")]
    assert server.peek_nowait(100) == b"onetwo"
