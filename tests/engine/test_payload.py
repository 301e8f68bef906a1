"""What is kept of what is said: the bytes of innermost layers, and copies of what moves unseen."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import trio
import trio.testing

from mitml4.capture.converse import Depth
from mitml4.engine.engine import Engine
from mitml4.engine.replay import Record, Replay, Step
from mitml4.engine.rules import HOLD_S, Rules
from mitml4.events import LayerEvent
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.memory import memory_pair
from mitml4.payload.budget import MAX_MEMORY, SessionPayload
from mitml4.protocols import registry
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Conversation,
    Direction,
    Forward,
    Protocol,
    Verdict,
)
from mitml4.protocols.flow_data import FlowData
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import FlowPolicy

UP, DOWN = Direction.UP, Direction.DOWN
ENDS: list[Step] = [(UP, None), (DOWN, None)]
HELLO = b"\x16\x03\x01\0\x30\x01\0\0\x2c\x03\x03" + bytes(32) + b"\0\0\x02\x13\x01\x01\0"
SMTP: list[Step] = [
    (DOWN, b"220 mx.example ESMTP\r\n"),
    (UP, b"EHLO me\r\n"),
    (DOWN, b"250-mx.example\r\n250 STARTTLS\r\n"),
]
NOBODY_S: list[Step] = [(UP, b"\0\1\2\3" * 5000), (DOWN, b"\xffhello"), (UP, b"more")]


def context(**payload: int) -> LayerContext:
    return LayerContext(hold_s=HOLD_S, shown=Shown(payload=SessionPayload(**payload).of_flow()))


def replayed(script: list[Step], given: LayerContext, chunk: int | None = None) -> list[FlowData]:
    record = Record()
    replay = Replay(Engine(Rules(), record, given))
    replay.play(script, chunk=chunk)
    replay.engine.close()
    return [event for _, event in record.protocol_events if isinstance(event, FlowData)]


class Seen(Record):
    """A capture's observer."""

    kept_bytes = 0

    def layer(self, *told: object, opened: bool = False) -> None:
        super().layer(*told)  # type: ignore[arg-type]


def captured(script: list[Step], given: LayerContext) -> list[FlowData]:
    seen = Seen()
    depth = Depth(seen, given)  # type: ignore[arg-type]
    for direction, data in script:
        if data is None:
            depth.end(direction)
            continue
        unseen = min(depth.unseen(direction), len(data))
        if unseen:
            depth.passed(direction, unseen)
        if data[unseen:]:
            depth.data(direction, data[unseen:])
    depth.close()
    return [event for _, event in seen.protocol_events if isinstance(event, FlowData)]


async def live(
    script: list[Step], given: LayerContext
) -> tuple[list[FlowData], dict[Direction, bytes]]:
    client, near = memory_pair(1 << 20)
    far, server = memory_pair(1 << 20)
    events: list[object] = []
    bridge = Bridge.between(
        near, far, relay=Relay(), report=Report(1, events.append), policy=FlowPolicy()
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Follower(bridge, given).detect)
        for direction, data in script:
            stream = client if direction is UP else server
            await (stream.send_eof() if data is None else stream.send_all(memoryview(data)))
            await trio.testing.wait_all_tasks_blocked()
        moved = {UP: server.peek_nowait(1 << 20), DOWN: client.peek_nowait(1 << 20)}
        nursery.cancel_scope.cancel()
    contents = [event.content for event in events if isinstance(event, LayerEvent)]
    return [content for content in contents if isinstance(content, FlowData)], moved


def said(events: list[FlowData], direction: Direction) -> bytes:
    """The events of a direction put together by their offsets."""
    whole = b""
    for event in events:
        if event.direction is direction:
            assert event.offset == len(whole)
            data = event.text.encode() if event.text is not None else None
            whole += data if data is not None else b64decode(event.base64 or "")
    return whole


async def test_all_drivers_show_the_bytes_of_an_innermost_layer(autojump_clock: object) -> None:
    script = [*NOBODY_S, *ENDS]
    sent = {UP: b"\0\1\2\3" * 5000 + b"more", DOWN: b"\xffhello"}
    shown, moved = await live(script, context())
    assert moved == sent
    splits = (replayed(script, context(), chunk) for chunk in (None, 1, 7, 4096))
    for events in (shown, captured(script, context()), *splits):
        assert {direction: said(events, direction) for direction in Direction} == sent
        assert not any(event.truncated for event in events)


async def test_the_limit_of_a_direction_and_of_a_session(autojump_clock: object) -> None:
    for bounds, up, down in (
        ({"limit": 6}, b"\0\1\2\3\0\1", b"\xffhello"),
        ({"limit": 20000}, b"\0\1\2\3" * 5000, b"\xffhello"),
        ({"limit": 20000}, b"\0\1\2\3" * 5000, b"\xffhello"),
        ({"left": 8}, b"\0\1\2\3\0\1\2\3", b""),
    ):
        script = [*NOBODY_S, *ENDS]
        shown, moved = await live(script, context(**bounds))
        assert len(moved[UP]) == 20004
        others = (captured(script, context(**bounds)), replayed(script, context(**bounds), 3))
        for events in (shown, *others):
            assert (said(events, UP), said(events, DOWN)) == (up, down)
            cut = [event.truncated for event in events if event.direction is UP]
            assert cut[-1]
            assert not any(cut[:-1])
    assert replayed([*NOBODY_S, *ENDS], LayerContext(hold_s=HOLD_S)) == []


def test_an_outer_layer_says_nothing() -> None:
    """What comes before STARTTLS is shown only if none comes."""
    started: list[Step] = [(UP, b"STARTTLS\r\n"), (DOWN, b"220 go\r\n"), (UP, HELLO)]
    assert replayed([*SMTP, *started, *ENDS], context()) == []
    plain = replayed([*SMTP, *ENDS], context())
    assert said(plain, UP) == b"EHLO me\r\n"
    assert said(plain, DOWN) == b"220 mx.example ESMTP\r\n250-mx.example\r\n250 STARTTLS\r\n"
    socks: list[Step] = [
        *((UP, b"\x05\x01\x00"), (DOWN, b"\x05\x00")),
        (UP, b"\x05\x01\x00\x03\x0bexample.org\x00\x50"),
        (DOWN, b"\x05\x00\x00\x01\0\0\0\0\0\0"),
        (UP, b"PING\r\n"),
        (DOWN, b"+PONG\r\n"),
    ]
    inside = replayed([*socks, *ENDS], context())
    assert (said(inside, UP), said(inside, DOWN)) == (b"PING\r\n", b"+PONG\r\n")


def test_protocols_with_messages_have_no_data() -> None:
    get, ok = (
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    assert replayed([(UP, get), (DOWN, ok), *ENDS], context()) == []
    assert replayed([(UP, HELLO), *ENDS], context()) == []


@dataclass(slots=True)
class Copied(Conversation):
    """The client's first byte says how many follow; they move under a Forward, with copies. What
    follows them is unseen."""

    name: ClassVar[str] = "copied"
    copies: bytearray = field(default_factory=bytearray)

    def feed(self, direction: Direction, data: bytes) -> int:
        self.details_ready = True
        if direction is DOWN:
            return len(data)
        self.up = Forward(data[0], is_copied=True)
        return 1

    def copied(self, direction: Direction, data: bytes) -> None:
        self.copies += data

    def passed(self, direction: Direction, count: int) -> None:
        super(Copied, self).passed(direction, count)
        if not isinstance(self.up, Forward):
            self.up = FORWARD_ALL


@pytest.fixture
def conversations(monkeypatch: pytest.MonkeyPatch) -> list[Copied]:
    made: list[Copied] = []

    def converse(given: LayerContext) -> Copied:
        made.append(Copied(context=given))
        return made[-1]

    row = Protocol(name="copied", detect=lambda _: Verdict.MATCH, converse=converse)
    monkeypatch.setattr(registry, "detect", registry.Registry([row]).detect)
    return made


async def test_a_conversation_gets_copies_of_what_moves(
    conversations: list[Copied], autojump_clock: object
) -> None:
    body = bytes(range(200))
    script: list[Step] = [
        *((UP, b"\xc8"), (UP, body[:70]), (UP, body[70:] + b"unseen"), (UP, b"more")),
        *((DOWN, b"secret"), *ENDS),
    ]
    unseen = LayerContext(hold_s=HOLD_S)
    _, moved = await live(script, unseen)
    assert moved == {UP: b"\xc8" + body + b"unseenmore", DOWN: b"secret"}
    captured(script, unseen)
    for chunk in (None, 1, 3):
        replayed(script, unseen, chunk)
    assert [bytes(each.copies) for each in conversations] == [body] * 5


def test_what_is_held_has_a_bound_in_the_session() -> None:
    started: list[Step] = [(UP, b"STARTTLS\r\n"), (DOWN, b"220 go\r\n"), (UP, HELLO)]
    for script, turns in (([*SMTP, *ENDS], 3), ([*SMTP, *started, *ENDS], 0)):
        given = context()
        events = replayed(script, given, chunk=1)
        assert [event.direction for event in events] == [DOWN, UP, DOWN][:turns]
        assert given.shown.payload is not None
        assert given.shown.payload.session.free == MAX_MEMORY
    talk: list[Step] = [*SMTP, *([(UP, b"NOOP\r\n"), (DOWN, b"250 ok\r\n")] * 1000)]
    given = context(free=40_000)
    record = Record()
    replay = Replay(Engine(Rules(), record, given))
    replay.play(talk)
    assert given.shown.payload is not None
    assert given.shown.payload.held <= 20_000
    assert replay.moved[UP].endswith(b"NOOP\r\n")
    replay.engine.close()
    events = [event for _, event in record.protocol_events if isinstance(event, FlowData)]
    assert said(events, UP).startswith(b"EHLO me\r\nNOOP\r\n")
    assert events[-1].truncated
    assert given.shown.payload.session.free == 40_000
