"""No flow keeps the event loop, whatever its two ends send, and how it comes."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from mitml4.engine import interpreter
from mitml4.engine.budget import Budget
from mitml4.engine.side import WINDOW
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.lane import Lane
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.dial import abort
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.net.stream import UrgentAhead
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    MAX_PEEK,
    MIRROR,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Details,
    Direction,
    Directive,
)
from mitml4.protocols.http.events import HttpRequest
from mitml4.protocols.policy import FlowPolicy, Target
from tests.streams import tcp_stream

CONTEXT = LayerContext(target=Target("server.test", 80), hold_s=0.5)
REQUEST = HttpRequest(stream=1, method="GET", url="/", version="HTTP/1.1", content_type=None)


@dataclass(slots=True)
class Units(Conversation):
    """Its messages are `unit` bytes long, up to one that begins with a full stop."""

    name = "units"
    unit: int = 1
    says: bool = False
    """Whether it has something to tell of each."""
    fed: list[int] = field(default_factory=list)
    """How many bytes it was shown each time."""

    def feed(self, direction: Direction, data: bytes) -> int:
        self.fed.append(len(data))
        taken = 0
        while len(data) - taken >= self.unit:
            taken += self.unit
            if self.says:
                self.protocol_events.append(REQUEST)
            if data[taken - 1 : taken] == b".":
                self.up = FORWARD_ALL
                break
        return taken

    def details(self) -> Details:
        return Details()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


@dataclass
class Ends:
    client: socket.socket
    server: socket.socket
    bridge: Bridge
    events: int = 0


@contextmanager
def bridged(relay: Relay | None = None) -> Iterator[Ends]:
    """A bridge between two connections, with the far ends of both."""
    (client, near), (far, server) = tcp_pair(), tcp_pair()
    ends = Ends(client, server, None)

    def publish(_event: object) -> None:
        ends.events += 1

    ends.bridge = Bridge.between(
        tcp_stream(near),
        tcp_stream(far),
        relay=relay or Relay(),
        report=Report(1, publish),
        policy=FlowPolicy(),
    )
    try:
        yield ends
    finally:
        for end in (client, server, ends.bridge.client_side, ends.bridge.server_side):
            end.close()


@pytest.mark.parametrize("directive", [PEEK, MIRROR])
@pytest.mark.parametrize("says", [True, False])
async def test_a_conversation_that_is_shown_much_is_shown_it_in_turns(
    monkeypatch, directive, says: bool
) -> None:
    """All of it is there when the reading begins, and no turn lasts: between two pieces the others
    run, and no piece is large."""
    monkeypatch.setattr(interpreter, "WORK_S", 0.0)
    conversation = Units(says=says, up=directive)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with bridged() as ends:
        monkeypatch.setattr(Budget, "spend", lambda *_, **__: True)
        ends.client.sendall(b"x" * 40_000 + b".")
        ends.client.shutdown(socket.SHUT_WR)
        ends.server.shutdown(socket.SHUT_WR)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count_turns)
                await Follower(ends.bridge, CONTEXT).follow(conversation, "client")
                nursery.cancel_scope.cancel()
        got = b""
        while more := ends.server.recv(65536):
            got += more
    assert got == b"x" * 40_000 + b"."
    assert sum(conversation.fed) >= len(got)
    assert turns >= len(conversation.fed)
    assert max(conversation.fed) <= (WINDOW if directive is PEEK else 16384)


async def test_the_messages_of_a_turn_are_sent_before_those_of_the_next_are_read(
    monkeypatch,
) -> None:
    """So that the other side answers them meanwhile. Otherwise a client that sends many requests at
    once would have too many without a response."""
    monkeypatch.setattr(interpreter, "WORK_S", 0.0)
    unsent = []

    class Watched(Units):
        def feed(self, direction: Direction, data: bytes) -> int:
            unsent.append(len(ends.bridge.up.due))
            return Units.feed(self, direction, data)

    with bridged() as ends:
        ends.client.sendall(b"x" * 40_000)
        ends.client.shutdown(socket.SHUT_WR)
        ends.server.shutdown(socket.SHUT_WR)
        with trio.fail_after(5):
            await Follower(ends.bridge, CONTEXT).follow(Watched(up=PEEK), "client")
    assert len(unsent) >= 40_000 // WINDOW
    assert set(unsent) == {0}


@dataclass(slots=True)
class Paused(Conversation):
    """The client's messages of three bytes wait for the server's `y`."""

    name = "paused"
    up: Directive = PAUSE
    messages: list[bytes] = field(default_factory=list)

    def feed(self, direction: Direction, data: bytes) -> int:
        if direction is Direction.DOWN:
            self.up = PEEK if b"y" in data else self.up
            return len(data)
        self.messages += [data[:3]] if len(data) >= 3 else []
        return 3 if len(data) >= 3 else 0


@pytest.mark.parametrize("early", [b"", b"1"])
async def test_a_wait_that_ends_while_it_is_interrupted_costs_no_byte(
    early: bytes, autojump_clock
) -> None:
    """Both sides send at once. Which lane runs first is left to chance, and only one order counts;
    the server's window is smaller than the message, so that sending it has to wait."""
    for _ in range(16):
        (client, near), (far, server) = memory_pair(64), memory_pair(2)
        bridge = Bridge.between(
            near, far, relay=Relay(), report=Report(1, lambda _: None), policy=FlowPolicy()
        )
        conversation, got = Paused(), b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Follower(bridge, CONTEXT).follow, conversation, "client")
            client.send_nowait(early)
            server.send_nowait(b"x")
            await trio.testing.wait_all_tasks_blocked()
            client.send_nowait(b"123456"[len(early) :])
            server.send_nowait(b"y")
            while len(got) < 6:
                await trio.testing.wait_all_tasks_blocked()
                piece = server.peek_nowait(64)
                server.discard(len(piece))
                got += piece
            nursery.cancel_scope.cancel()
        assert (got, conversation.messages) == (b"123456", [b"123", b"456"])


@dataclass(slots=True)
class Switched(Conversation):
    """It is over with the server's first byte."""

    name = "switched"

    def feed(self, direction: Direction, data: bytes) -> int:
        self.up = self.down = SWITCH
        return len(data)


async def test_a_lane_is_interrupted_while_it_waits_for_room_for_urgent_data(
    monkeypatch, autojump_clock
) -> None:
    (client, near), (far, server) = memory_pair(), memory_pair(1)
    monkeypatch.setattr(near, "peek_urgent", lambda: MemoryStream.peek_nowait(near, 1))
    monkeypatch.setattr(near, "peek_nowait", lambda _limit: b"")

    def peek_available(_limit: int) -> bytes | None:
        raise UrgentAhead(b"")

    monkeypatch.setattr(near, "peek_available", peek_available)
    bridge = Bridge.between(
        near, far, relay=Relay(), report=Report(1, lambda _: None), policy=FlowPolicy()
    )
    far.send_nowait(b"1")  # for more, the server has no room
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Follower(bridge, CONTEXT).follow, Switched(), "client")
            await trio.testing.wait_all_tasks_blocked()
            client.send_nowait(b"U")
            await trio.testing.wait_all_tasks_blocked()
            server.send_nowait(b"y")
    assert (near.unread_count(), server.peek_nowait(9)) == (1, b"1")
    assert client.peek_nowait(9) == b"y"


async def test_a_lane_that_goes_on_waiting_is_not_interrupted(monkeypatch) -> None:
    """The first request changes what the answer is taken for, and not what its lane waits for."""
    waits = Counter[Direction]()
    next_of = Lane.next

    async def counted(lane: Lane) -> bytes:
        waits[Direction.UP if lane is ends.bridge.up else Direction.DOWN] += 1
        return await next_of(lane)

    async def wait_for_nothing(_: Bridge) -> None:
        """As inside TLS, where both lanes wait before anything is known."""
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Lane, "next", counted)
    monkeypatch.setattr(Bridge, "wait_first", wait_for_nothing)
    with bridged() as ends, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Follower(ends.bridge, CONTEXT).detect)
            for sender, message in (
                (ends.client, b"GET / HTTP/1.1\r\nHost: server.test\r\n\r\n"),
                (ends.server, b"HTTP/1.1 204 No Content\r\n\r\n"),
            ):
                await trio.testing.wait_all_tasks_blocked(0.01)
                sender.sendall(message)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    assert waits == {Direction.UP: 2, Direction.DOWN: 2}


async def test_a_message_that_comes_byte_by_byte_is_not_looked_at_for_each(autojump_clock) -> None:
    """As long as a byte is there whenever one is asked for. Whoever waits for the next one gets a
    look at each."""

    class Trickle:
        """Has one byte more whenever it is asked."""

        def __init__(self, data: bytes) -> None:
            self.data = data
            self.shown = 0
            self.transport = self

        async def wait_receivable(self) -> None:
            await trio.lowlevel.checkpoint()

        async def peek(self, beyond: int, limit: int) -> bytes:
            while self.shown <= beyond and self.shown < len(self.data):
                await trio.lowlevel.checkpoint()
                self.shown += 1
            return self.data[: min(self.shown, limit)]

        def peek_nowait(self, limit: int) -> bytes:
            return self.data[: min(self.shown, limit)]

        def peek_available(self, limit: int) -> bytes:
            self.shown = max(self.shown, 1)
            return self.peek_nowait(limit)

        def raise_if_reset(self) -> None:
            pass

    lane = Lane(Trickle(b"x" * MAX_PEEK), Trickle(b""), Relay())  # type: ignore[arg-type]
    seen, looks = 0, 0
    while seen < MAX_PEEK:
        data = await lane.look(seen)
        assert len(data) > seen
        seen = len(data)
        looks += 1
    assert looks < 1100  # a kilobyte of looks, then one for each eighth more


class Turns(trio.abc.Instrument):
    """Counts the turns of the event loop. In each turn, every task that can run runs once."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_flows_that_are_dropped_together_end_a_few_at_a_time(how: str) -> None:
    """Between those that end at once, other tasks run."""
    relay, turns, ended_in = Relay(), Turns(), Counter[int]()

    async def follow(ends: Ends) -> None:
        with suppress(ConnectionResetError):
            await Follower(ends.bridge, CONTEXT).detect()
        ended_in[turns.count] += 1

    with ExitStack() as stack, trio.fail_after(10):
        everyone = [stack.enter_context(bridged(relay)) for _ in range(60)]
        async with trio.open_nursery() as nursery:
            for ends in everyone:
                nursery.start_soon(follow, ends)
            await trio.testing.wait_all_tasks_blocked()
            for ends in everyone:
                if how == "reset":
                    abort(ends.client)
                else:
                    ends.client.shutdown(socket.SHUT_WR)
                    ends.server.shutdown(socket.SHUT_WR)
            trio.lowlevel.add_instrument(turns)
    trio.lowlevel.remove_instrument(turns)
    assert ended_in.total() == len(everyone)
    assert max(ended_in.values()) <= 16
