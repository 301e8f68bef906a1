"""One interpreter: the three drivers make the same of the same bytes, ends and silences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import trio
import trio.testing

from mitml4.capture.converse import Depth
from mitml4.engine.actions import Move, MoveAhead, Wait
from mitml4.engine.engine import Engine
from mitml4.engine.replay import Record, Replay
from mitml4.engine.rules import HOLD_S, Rules
from mitml4.errors import ProtocolError
from mitml4.events import FlowError, FlowLayer
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.memory import memory_pair
from mitml4.protocols import registry
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    MAX_PEEK,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Direction,
    Directive,
    Forward,
    Protocol,
    Verdict,
)
from mitml4.protocols.policy import (
    Blocked,
    End,
    FlowPolicy,
    PolicyDecision,
    Target,
    Unreadable,
)

UP, DOWN = Direction.UP, Direction.DOWN
END = None
Step = tuple[Direction, bytes | None] | float
"""Bytes, or the end of a direction; a number is seconds of silence."""


@dataclass(slots=True)
class Units(Conversation):
    """The client's units begin with their length in three bytes; one that begins with `!` switches.
    The server's bytes are its own, each of them."""

    name: ClassVar[str] = "units"
    shown: list[tuple[Direction, int | None]] = field(default_factory=list)
    """What was taken of each direction, and its end."""
    breaks_at_end: bool = False

    def feed(self, direction: Direction, data: bytes) -> int:
        if direction is DOWN:
            taken = len(data)
        elif data[:1] == b"!":
            self.up, taken = SWITCH, 1
        else:
            taken = 3 + int.from_bytes(data[:3], "big") if len(data) >= 3 else len(data) + 1
        if taken > len(data):
            return 0
        self.shown.append((direction, taken))
        return taken

    def passed(self, direction: Direction, count: int) -> None:
        raise ProtocolError("broken by what was forwarded")

    def copied(self, direction: Direction, data: bytes) -> None:
        raise ProtocolError("broken by what was copied")

    def end(self, direction: Direction) -> None:
        self.shown.append((direction, None))
        if self.breaks_at_end:
            raise ProtocolError("broken by the end")


@dataclass
class Outcome:
    """What became of a script."""

    stack: list[str]
    faults: list[tuple[str, str]]
    shown: list[tuple[Direction, int | None]]


Begin = Callable[[], Units]


def units(up: Directive = PEEK) -> Begin:
    return lambda: Units(up=up)


@pytest.fixture
def everything_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[Begin], list[Units]]:
    """Let every opening be such a conversation, except inside one; gives the conversations."""

    def register(begin: Begin) -> list[Units]:
        made: list[Units] = []

        def converse(_context: LayerContext) -> Units:
            made.append(begin())
            return made[-1]

        def detect(opening: object) -> Verdict:
            return Verdict.REJECT if opening.stack else Verdict.MATCH  # type: ignore[attr-defined]

        row = Protocol(name="units", detect=detect, converse=converse)
        monkeypatch.setattr(registry, "detect", registry.Registry([row]).detect)
        return made

    return register


async def live(script: list[Step]) -> tuple[list[str], list[tuple[str, str]], tuple[bytes, bytes]]:
    client, near = memory_pair(1 << 20)
    far, server = memory_pair(1 << 20)
    events: list[object] = []
    bridge = Bridge.between(
        near, far, relay=Relay(), report=Report(1, events.append), policy=FlowPolicy()
    )
    context = LayerContext(clock=trio.current_time, hold_s=HOLD_S)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def follow() -> None:
            await Follower(bridge, context).detect()

        await trio.testing.wait_all_tasks_blocked()
        for step in script:
            if isinstance(step, float):
                await trio.sleep(step)
                continue
            direction, data = step
            stream = client if direction is UP else server
            await (stream.send_eof() if data is None else stream.send_all(memoryview(data)))
            await trio.testing.wait_all_tasks_blocked()
        moved = (server.peek_nowait(1 << 20), client.peek_nowait(1 << 20))
        nursery.cancel_scope.cancel()
    stack = [event.protocol for event in events if isinstance(event, FlowLayer)]
    faults = [(str(event.side), event.reason) for event in events if isinstance(event, FlowError)]
    return stack, faults, moved


class Seen(Record):
    """A capture's observer."""

    kept_bytes = 0

    def layer(self, *told: object, opened: bool = False) -> None:
        super().layer(*told)  # type: ignore[arg-type]


def offline(script: list[Step]) -> tuple[list[str], list[tuple[str, str]]]:
    seen, now = Seen(), [0.0]
    depth = Depth(seen, LayerContext(clock=lambda: now[0], hold_s=HOLD_S))  # type: ignore[arg-type]
    for step in script:
        if isinstance(step, float):
            now[0] += step
            continue
        direction, data = step
        if data is None:
            depth.end(direction)
        elif unseen := min(depth.unseen(direction), len(data)):
            depth.passed(direction, unseen)
            if data[unseen:]:
                depth.data(direction, data[unseen:])
        else:
            depth.data(direction, data)
    depth.close()
    return seen.stack, sides(seen)


def by_list(script: list[Step], chunk: int | None = None) -> tuple[Record, Replay]:
    record, now = Record(), [0.0]
    context = LayerContext(clock=lambda: now[0], hold_s=HOLD_S)
    replay = Replay(Engine(Rules(), record, context))
    for step in script:
        if isinstance(step, float):
            now[0] += step
            replay.pump()
        else:
            replay.play([step], chunk=chunk)
    replay.engine.close()
    return record, replay


def sides(record: Record) -> list[tuple[str, str]]:
    return [
        ("client" if direction is UP else "server", reason)
        for _, direction, reason in record.faults
    ]


def unit(size: int) -> bytes:
    return (size - 3).to_bytes(3, "big") + bytes(size - 3)


TOO_LONG = ("client", "a message is longer than 64 KiB")
TOO_MANY = ("client", "more bytes than may be held back")
CASES: dict[str, tuple[Begin, list[Step], list[str], list[tuple[str, str]]]] = {
    "a unit as long as may be shown": (units(), [(UP, unit(MAX_PEEK))], ["units"], []),
    "a unit that is one byte longer": (
        units(),
        [(UP, unit(MAX_PEEK + 1)), (UP, b"more")],
        ["units"],
        [TOO_LONG],
    ),
    "an error out of what was forwarded": (
        units(Forward(5)),
        [(DOWN, b"first"), (UP, b"12345"), (UP, b"more")],
        ["units"],
        [("client", "broken by what was forwarded")],
    ),
    "an error out of what was copied": (
        units(Forward(5, is_copied=True)),
        [(DOWN, b"first"), (UP, b"12345"), (UP, b"more")],
        ["units"],
        [("client", "broken by what was copied")],
    ),
    "an error out of the end": (
        lambda: Units(breaks_at_end=True),
        [(UP, unit(5)), (DOWN, b"first"), (UP, END), (DOWN, b"more")],
        ["units"],
        [("client", "broken by the end")],
    ),
    "held, but not for long": (
        units(PAUSE),
        [(UP, bytes(MAX_PEEK)), HOLD_S / 2, (UP, b"x"), (DOWN, b"y")],
        ["units"],
        [],
    ),
    "held for too long": (
        units(PAUSE),
        [(UP, b"early"), 2 * HOLD_S, (UP, b"x"), (DOWN, b"y")],
        ["units"],
        [],
    ),
    "held for too long, and then more": (
        units(PAUSE),
        [(UP, bytes(MAX_PEEK)), 2 * HOLD_S, (UP, b"x"), (DOWN, b"y")],
        ["units"],
        [],
    ),
    "held for too long, and too much": (
        units(PAUSE),
        [(UP, bytes(MAX_PEEK + 1)), 2 * HOLD_S, (UP, b"x")],
        ["units"],
        [TOO_MANY],
    ),
    "paused, and the other side ends": (
        units(PAUSE),
        [(UP, b"early"), (DOWN, END), (UP, bytes(MAX_PEEK + 1))],
        ["units"],
        [],
    ),
    "switched, and the other side ends": (
        units(),
        [(UP, b"!inner"), (DOWN, END), (UP, bytes(MAX_PEEK + 1))],
        ["units"],
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_all_drivers_agree(
    case: str, everything_is: Callable, autojump_clock: object
) -> None:
    begin, script, stack, faults = CASES[case]
    made = everything_is(begin)
    assert offline(script) == (stack, faults)
    record, replay = by_list(script)
    assert (record.stack, sides(record)) == (stack, faults)
    live_stack, live_faults, moved = await live(script)
    assert (live_stack, live_faults) == (stack, faults)
    assert moved == (bytes(replay.moved[UP]), bytes(replay.moved[DOWN]))
    assert made[0].shown == made[1].shown == made[2].shown


SOCKS4: list[tuple[Direction, bytes | None]] = [
    (UP, b"\4\1\0\x50\x7f\0\0\1\0"),
    (DOWN, b"\0\x5a\0\0\0\0\0\0"),
]


def test_no_more_than_sixteen_layers_are_followed() -> None:
    """What is inside is relayed, unless a host is refused: it may be asked for there."""
    script: list[Any] = 20 * SOCKS4
    stack = 16 * ["socks4"] + ["unknown"]
    record, replay = by_list(script)
    assert record.stack == offline(script)[0] == stack
    assert replay.moved[UP] == 20 * b"\4\1\0\x50\x7f\0\0\1\0"
    strict = LayerContext(policy=FlowPolicy(refuse_what_cannot_be_read))
    with pytest.raises(Blocked, match="more layers than are followed"):
        Replay(Engine(Rules(), Record(), strict)).play(script)


REQUEST = ("GET /", "GET http://ok.test/ HT", "GET / HTTP/1.1\r\nHo", "CONNECT ok.t", "\r\nGET /")
OTHERWISE = ("GE", "GET /\r\n", "CONNECT", "PING", "USER a\r\n", "EHLO a")


def test_a_part_of_a_request_waits_for_ten_seconds_where_a_host_is_refused() -> None:
    """Then it moves. What is no part of a request waits no longer than without such a policy."""
    now = 0.0

    def wait_s(said: str, policy: FlowPolicy) -> float:
        """How long its last byte waits."""
        nonlocal now
        context = LayerContext(clock=lambda: now, hold_s=HOLD_S, policy=policy)
        engine, now, data = Engine(Rules(), Record(), context), 0.0, said.encode()
        while data:
            match engine.next_action(UP, data):
                case Wait(until=until):
                    now = until
                case Move(count) | MoveAhead(count):
                    data = data[count:]
        return now

    free, strict = FlowPolicy(), FlowPolicy(refuse_what_cannot_be_read)
    assert {said: wait_s(said, strict) for said in REQUEST} == dict.fromkeys(REQUEST, 10.0)
    assert max(wait_s(said, free) for said in (*REQUEST, *OTHERWISE)) == HOLD_S
    for said in OTHERWISE:
        assert wait_s(said, strict) == wait_s(said, free), said


def refuse_what_cannot_be_read(ends: Sequence[End]) -> PolicyDecision:
    unreadable = any(isinstance(end, Unreadable) for end in ends)
    return PolicyDecision("block") if unreadable else PolicyDecision("intercept")


def test_what_waits_for_a_side_that_has_ended_moves() -> None:
    """So it does in the cases above, where nothing else says so."""
    engine = Engine(Rules(), Record(), LayerContext(hold_s=HOLD_S))
    engine.follow(Units(up=PAUSE))
    replay = Replay(engine)
    replay.play([(UP, b"early")])
    assert replay.kept[UP] == b"early"
    replay.play([(DOWN, END)])
    assert replay.moved[UP] == b"early"


def refuse_others(ends: Sequence[End]) -> PolicyDecision:
    allowed = {"allowed.example"}
    refused = any(not isinstance(end, Target) or end.host not in allowed for end in ends)
    return PolicyDecision("block") if refused else PolicyDecision("intercept")


def test_nobody_hears_of_the_end_of_a_request_that_was_refused() -> None:
    get = "GET / HTTP/1.1\r\nHost: {}.example\r\n\r\n"
    begun = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"
    allowed = [(UP, get.format("allowed").encode()), (DOWN, begun.encode())]
    heard = [("http.request", 1), ("http.response", 1), ("http.end", 1)]
    for script, expected in ((allowed, heard), ([], [])):
        record = Record()
        server = Target("192.0.2.1", 80)
        context = LayerContext(target=server, policy=FlowPolicy(refuse_others))
        replay = Replay(Engine(Rules(), record, context))
        replay.play(script)
        with pytest.raises(Blocked):
            replay.play([(UP, get.format("blocked").encode())])
        replay.engine.close()
        events: list[Any] = record.protocol_events
        told = [(event.type, event.stream) for _, event in events]
        assert told == expected
        assert record.stack == ["http/1"]
