"""Relay: a copy is shown before it moves, since the answer to it may come at once."""

from typing import Any

from mitml4.layers.relay import Relay


class Source:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def receive_nowait(self, room: memoryview) -> int | None:
        if not self.pieces:
            return None
        piece = self.pieces.pop(0)
        room[: len(piece)] = piece
        return len(piece)


class Sink:
    def __init__(self, log: list[Any]) -> None:
        self.log = log

    async def send_all(self, data: memoryview) -> None:
        self.log.append(("moved", bytes(data)))


async def test_a_copy_is_shown_before_it_moves() -> None:
    log: list[Any] = []

    async def show(data: bytes) -> None:
        log.append(("shown", data))

    source: Any = Source(b"one", b"two")
    sink: Any = Sink(log)
    relay = Relay()
    while await relay.copy(source, sink, None, show):
        pass
    assert log == [("shown", b"one"), ("moved", b"one"), ("shown", b"two"), ("moved", b"two")]
