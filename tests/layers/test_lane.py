"""A lane: however its source ends, that is an end and no error of ours."""

from typing import Any

from mitml4.layers.lane import Lane
from mitml4.layers.relay import Relay
from mitml4.net.stream import StreamTruncated


class Truncated:
    """TLS inside TLS that ends without close_notify: waiting for more finds it out."""

    @property
    def transport(self) -> "Truncated":
        return self

    def peek_nowait(self, _limit: int) -> bytes:
        return b""

    def peek_urgent(self) -> bytes:
        return b""

    def raise_if_reset(self) -> None:
        """It was not."""

    async def wait_receivable(self) -> None:
        raise StreamTruncated("the connection ended without close_notify")


async def test_a_truncation_that_waiting_finds_is_the_end_of_the_lane() -> None:
    async def show(_data: bytes) -> None:
        raise AssertionError

    source: Any = Truncated()
    moves: dict[str, Any] = {
        "look": lambda lane: lane.look(0),
        "mirror": lambda lane: lane.mirror(show),
    }
    for name, move in moves.items():
        lane = Lane(source, source, Relay())
        await move(lane)
        assert lane.ended, name
        assert isinstance(lane.truncation, StreamTruncated), name
