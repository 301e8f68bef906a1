"""A lane: however its source ends, that is an end and no error of ours."""

from typing import Any

import pytest
import trio

from mitml4.layers.lane import BrokenTlsError, Lane
from mitml4.layers.relay import Relay
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.net.stream import StreamTruncated
from mitml4.protocols.tls.alerts import Alert
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridged_stream import BridgedStream
from tests.tls.bridge.ends import Far


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


class Side:
    """A side of a flow by the bridge, and its far end below TLS."""

    def __init__(self, *, is_client: bool) -> None:
        below, self.wire = memory_pair()
        connection, self.far = Far.of_new(is_client=is_client)
        self.stream = BridgedStream(below, connection)

    async def write(self, *records: bytes) -> None:
        await self.wire.send_all(memoryview(b"".join(records)))

    def sent(self) -> list[tuple[int, bytes]]:
        return self.far.read(self.wire.peek_nowait(65536))


async def test_the_alert_that_ends_one_side_ends_the_other() -> None:
    for alert, is_server in ((Alert.INTERNAL_ERROR, True), (Alert.UNKNOWN_CA, False)):
        client, server = Side(is_client=False), Side(is_client=True)
        up = Lane(client.stream, server.stream, Relay())
        down = Lane(server.stream, client.stream, Relay(), answers=up)
        lane, source, sink = (down, server, client) if is_server else (up, client, server)
        await source.write(source.far.data(b"part"), source.far.alert(2, alert))
        if is_server:
            with pytest.raises(BrokenTlsError, match="internal_error"):
                await lane.pass_on(None)
        else:
            assert await lane.pass_on(None) == 4
            await lane.end()
            await lane.end()
        data, last = sink.sent()
        assert data == (RecordType.APPLICATION_DATA, b"part")
        assert last == (RecordType.ALERT, bytes([2, alert]))


async def test_an_alert_for_a_client_that_reads_nothing_is_given_up(autojump_clock) -> None:
    client, server = Side(is_client=False), Side(is_client=True)
    lane = Lane(server.stream, client.stream, Relay())
    lane.answers = Lane(client.stream, server.stream, Relay())
    assert isinstance(client.stream.below, MemoryStream)
    client.stream.below._window = 0
    await server.write(server.far.alert(2, Alert.INTERNAL_ERROR))
    with trio.fail_after(5), pytest.raises(BrokenTlsError):
        await lane.pass_on(None)
