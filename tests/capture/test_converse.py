"""Layers out of a flow's streams: nesting, boundaries, bytes that are missing, bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from mitml4.capture.converse import Depth
from mitml4.capture.flow import ALL
from mitml4.engine.rules import HOLD_S
from mitml4.errors import ProtocolError
from mitml4.protocols import registry
from mitml4.protocols.conversation import (
    MAX_PEEK,
    MIRROR,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Details,
    Direction,
    Forward,
    LayerContext,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.http.events import HttpEnd
from mitml4.protocols.protocol_event import ProtocolEvent

UP, DOWN = Direction.UP, Direction.DOWN
Script = list[tuple[Direction, bytes]]

REQUEST = b"GET /x HTTP/1.1\r\nHost: example.org\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
SOCKS: Script = [
    (UP, b"\x05\x01\x00"),
    (DOWN, b"\x05\x00"),
    (UP, b"\x05\x01\x00\x03\x0bexample.org\x00\x50"),
    (DOWN, b"\x05\x00\x00\x01\0\0\0\0\0\0"),
]
UPGRADE: Script = [
    (
        UP,
        b"GET /c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
    (
        DOWN,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    ),
    (DOWN, b"\x81\x02hi"),
]


@dataclass
class Seen:
    """An observer that writes down what it is told."""

    kept_bytes: int = 0
    layers: list[tuple[int, str, str]] = field(default_factory=list)
    details: list[Details | None] = field(default_factory=list)
    protocol_events: list[tuple[int, ProtocolEvent]] = field(default_factory=list)
    faults: list[tuple[int, Direction, str]] = field(default_factory=list)

    def layer(
        self, depth: int, protocol: str, speaker: str, details: Details | None, *, opened: bool
    ) -> None:
        self.layers.append((depth, protocol, speaker))
        self.details.append(details)

    def protocol_event(self, depth: int, protocol_event: ProtocolEvent) -> None:
        self.protocol_events.append((depth, protocol_event))

    def fault(self, depth: int, direction: Direction, reason: str) -> None:
        self.faults.append((depth, direction, reason))

    @property
    def stack(self) -> list[str]:
        return [protocol for _, protocol, _ in self.layers]


def play(script: Script, *, chunk: int | None = None) -> tuple[Depth, Seen]:
    """Bring a script as a reassembler would, `chunk` bytes at a time, what is unseen unseen."""
    seen = Seen()
    depth = Depth(seen, LayerContext(hold_s=HOLD_S))
    for direction, data in script:
        bring(depth, direction, data, chunk)
    return depth, seen


def bring(depth: Depth, direction: Direction, data: bytes, chunk: int | None = None) -> None:
    while data:
        count = min(depth.unseen(direction), len(data))
        if count:
            depth.passed(direction, count)
            data = data[count:]
        if data:
            size = min(chunk or len(data), len(data))
            depth.data(direction, data[:size])
            data = data[size:]


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_layers_are_told_outermost_first_with_their_notices(chunk: int | None) -> None:
    depth, seen = play([*SOCKS, (UP, REQUEST), (DOWN, RESPONSE + b"0123456789")], chunk=chunk)
    depth.close()
    assert seen.layers == [(0, "socks5", "client"), (1, "http/1", "client")]
    assert [(at, type(protocol_event).__name__) for at, protocol_event in seen.protocol_events] == [
        (1, "HttpRequest"),
        (1, "HttpResponse"),
        (1, "HttpEnd"),
    ]
    assert getattr(seen.details[0], "target", None) is not None
    assert (seen.faults, seen.kept_bytes) == ([], 0)


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_negotiated_protocol_is_not_asked_for(chunk: int | None) -> None:
    depth, seen = play(UPGRADE, chunk=chunk)
    depth.close()
    assert seen.layers == [(0, "http/1", "client"), (1, "websocket", "server")]


def test_a_server_that_speaks_first_is_the_speaker() -> None:
    depth, seen = play([(DOWN, b"SSH-2.0-OpenSSH_9.6\r\n"), (UP, b"SSH-2.0-x\r\n")])
    depth.close()
    assert seen.layers == [(0, "ssh", "server")]


def test_what_nobody_knows_is_unknown_and_not_looked_at() -> None:
    depth, seen = play([(UP, b"\x00\x01\x02\x03 nothing at all \xff" * 40)])
    bring(depth, DOWN, b"\x07" * 20000)
    depth.close()
    assert seen.stack == ["unknown"]
    assert seen.details == [None]
    assert (depth.unseen(UP), depth.unseen(DOWN), seen.kept_bytes) == (ALL, ALL, 0)


def test_no_byte_makes_no_layer() -> None:
    depth, seen = play([])
    depth.end(UP)
    depth.close()
    assert seen.layers == []


def test_bytes_that_are_missing_in_a_body_are_not_missed() -> None:
    depth, seen = play([(UP, REQUEST), (DOWN, RESPONSE + b"0123")])
    assert depth.unseen(DOWN) == 6
    depth.passed(DOWN, 6)
    bring(depth, UP, REQUEST)
    depth.close()
    assert [type(protocol_event).__name__ for _, protocol_event in seen.protocol_events].count(
        "HttpRequest"
    ) == 2
    assert seen.faults == []


def test_bytes_that_are_missing_elsewhere_end_the_following() -> None:
    depth, seen = play([(UP, REQUEST), (DOWN, RESPONSE[:9])])
    depth.lost(DOWN, 30)
    bring(depth, UP, REQUEST)
    depth.close()
    assert seen.stack == ["http/1"]
    assert seen.faults == [(0, DOWN, "30 bytes are missing from the capture")]
    assert [type(protocol_event).__name__ for _, protocol_event in seen.protocol_events] == [
        "HttpRequest",
        "HttpEnd",
    ]


def test_detection_does_not_read_over_a_hole() -> None:
    depth, seen = play([(UP, REQUEST[:2])])
    depth.lost(UP, 10)
    bring(depth, UP, REQUEST[2:])
    depth.close()
    assert seen.stack == ["unknown"]


def test_a_hole_before_the_first_byte_leaves_the_other_side_to_tell() -> None:
    depth, seen = play([])
    depth.lost(UP, 10)
    bring(depth, DOWN, b"SSH-2.0-OpenSSH_9.6\r\n")
    depth.close()
    assert seen.layers == [(0, "ssh", "server")]


def test_what_came_before_a_hole_is_still_read_when_the_protocol_is_found() -> None:
    start = b"\x05\x02\x00"
    depth, seen = play([(UP, start)])
    depth.lost(UP, 1)
    depth.close()
    assert seen.stack in (["unknown"], ["socks5"])
    assert seen.kept_bytes == 0


def test_a_broken_protocol_is_told_and_keeps_its_details() -> None:
    depth, seen = play([*SOCKS[:3], (DOWN, b"\x09\x09\x09\x09")])
    depth.close()
    assert seen.stack == ["socks5"]
    assert [(at, direction) for at, direction, _ in seen.faults] == [(0, DOWN)]


def test_giving_up_answers_as_it_stands() -> None:
    depth, seen = play([*SOCKS, (UP, REQUEST[:2])])
    depth.give_up()
    assert seen.stack == ["socks5", "unknown"]
    assert (depth.unseen(UP), seen.kept_bytes) == (ALL, 0)


@dataclass(slots=True)
class Odd(Conversation):
    """A conversation that is made to measure."""

    name: ClassVar[str] = "odd"
    hear: Callable[[Conversation, Direction, bytes], int] = lambda *_: 0
    ends: list[Direction] = field(default_factory=list)

    def feed(self, direction: Direction, data: bytes) -> int:
        return self.hear(self, direction, data)

    def end(self, direction: Direction) -> None:
        self.ends.append(direction)

    def details(self) -> Details:
        return Details()


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Odd]]:
    """Let every opening be the odd protocol's, and give back its conversations."""

    def register(**fields: Any) -> list[Odd]:
        made: list[Odd] = []

        def converse(context: LayerContext) -> Odd:
            made.append(Odd(context=context, **fields))
            return made[-1]

        row = Protocol(name="odd", detect=lambda _: Verdict.MATCH, converse=converse)
        only = registry.Registry([row])
        monkeypatch.setattr(registry, "detect", only.detect)
        return made

    return register


def test_a_look_that_never_ends_is_a_fault(odd: Any) -> None:
    odd()
    depth, seen = play([(UP, bytes(MAX_PEEK - 1))])
    assert seen.faults == []
    bring(depth, UP, b"x")
    assert [direction for _, direction, _ in seen.faults] == [UP]


def test_what_must_wait_waits_for_so_long_and_up_to_a_bound(odd: Any) -> None:
    odd(up=PAUSE)
    now = [0.0]
    seen = Seen()
    depth = Depth(seen, LayerContext(clock=lambda: now[0], hold_s=HOLD_S))
    bring(depth, UP, bytes(MAX_PEEK))
    now[0] = 2 * HOLD_S
    bring(depth, UP, b"x")
    assert (seen.faults, seen.kept_bytes) == ([], MAX_PEEK + 1)
    now[0] = 4 * HOLD_S
    bring(depth, UP, b"x")
    assert [direction for _, direction, _ in seen.faults] == [UP]
    assert seen.kept_bytes == 0


def test_a_held_direction_goes_on_when_the_other_one_changes_it(odd: Any) -> None:
    def hear(conversation: Conversation, direction: Direction, data: bytes) -> int:
        if direction is DOWN:
            conversation.up = PEEK
        return len(data)

    made = odd(up=PAUSE, hear=hear)
    depth, seen = play([(UP, b"early"), (DOWN, b"now")])
    assert seen.kept_bytes == 0
    depth.end(UP)
    assert made[0].ends == [UP]
    depth.end(UP)
    assert made[0].ends == [UP]


def test_what_is_tapped_counts_as_kept_until_the_layer_is_told(odd: Any) -> None:
    def hear(conversation: Conversation, direction: Direction, data: bytes) -> int:
        conversation.details_ready = data == b"ready"
        return len(data)

    odd(up=MIRROR, hear=hear)
    depth, seen = play([(UP, b"a piece"), (UP, b" and another")])
    assert (seen.kept_bytes, seen.stack) == (19, [])
    bring(depth, UP, b"ready")
    assert (seen.kept_bytes, seen.stack) == (0, ["odd"])
    bring(depth, UP, b"what follows")
    assert seen.kept_bytes == 0


def test_giving_up_tells_what_was_learned_and_forgets_the_conversation(odd: Any) -> None:
    odd(up=MIRROR)
    depth, seen = play([(UP, b"a piece")])
    depth.give_up()
    assert (seen.kept_bytes, seen.stack) == (0, ["odd"])
    depth.close()
    assert seen.stack == ["odd"]


def test_it_is_over_when_both_have_ended_and_every_layer_is_told() -> None:
    depth, _ = play([*SOCKS, (UP, REQUEST), (DOWN, RESPONSE + b"0123456789")])
    for direction in (UP, DOWN):
        assert not depth.over
        depth.end(direction)
    assert depth.over
    depth, seen = play([(UP, REQUEST[:2])])
    depth.end(UP)
    depth.end(DOWN)
    assert depth.over == bool(seen.stack)


def test_an_end_is_told_after_the_last_byte_and_what_nobody_took_is_dropped(odd: Any) -> None:
    made = odd()
    depth, seen = play([(UP, b"half a unit")])
    assert seen.kept_bytes == 11
    depth.end(UP)
    assert (made[0].ends, seen.kept_bytes) == ([UP], 0)


def test_an_end_reaches_the_inner_protocol(odd: Any) -> None:
    made = odd(up=SWITCH, down=SWITCH)
    depth, _ = play([(UP, b"x")])
    depth.end(UP)
    assert all(not conversation.ends for conversation in made)
    assert len(made) == 16


def test_nesting_has_a_bound(odd: Any) -> None:
    odd(up=SWITCH, down=SWITCH)
    depth, seen = play([(UP, b"x")])
    depth.close()
    assert seen.stack == ["odd"] * 16 + ["unknown"]
    assert depth.unseen(UP) == ALL


def test_protocol_errors_are_caught_wherever_they_come_from(
    odd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(Odd):
        def passed(self, direction: Direction, count: int) -> None:
            raise ProtocolError("passed")

    def fail(*_: Any) -> int:
        raise ProtocolError("fed")

    odd(hear=fail)
    _, seen = play([(UP, b"x")])
    assert [reason for _, _, reason in seen.faults] == ["fed"]

    row = Protocol(
        name="bad", detect=lambda _: Verdict.MATCH, converse=lambda a: Bad(context=a, up=Forward(5))
    )
    monkeypatch.setattr(registry, "detect", registry.Registry([row]).detect)
    depth, seen = play([(DOWN, b"x")])
    depth.passed(UP, 5)
    assert [reason for _, _, reason in seen.faults] == ["passed"]


def test_the_opening_says_what_it_is_within_and_where_it_is_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Opening] = []
    detect = registry.detect

    def spy(opening: Opening) -> registry.Detection:
        asked.append(opening)
        return detect(opening)

    monkeypatch.setattr(registry, "detect", spy)
    play([*SOCKS, (UP, REQUEST)])
    assert (asked[0].stack, asked[-1].stack) == ((), ("socks5",))
    assert (asked[0].port, asked[-1].port) == (None, 80)  # of what SOCKS asked for
    assert asked[-1].up == REQUEST


def http2_streams(count: int) -> bytes:
    """The client's side of a connection, with so many streams that nobody ends."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
    numbers = range(1, 2 * count, 2)
    return preface + b"".join(
        b"\0\0\3\1\4" + number.to_bytes(4) + b"\x82\x86\x84" for number in numbers
    )


def test_what_a_conversation_holds_is_counted_once_it_is_much() -> None:
    _, few = play([(UP, http2_streams(100))])
    assert few.kept_bytes == 0
    depth, many = play([(UP, http2_streams(1000))])
    assert many.kept_bytes > 100_000
    depth.give_up()
    assert many.kept_bytes == 0
    ends = [
        protocol_event
        for _, protocol_event in many.protocol_events
        if isinstance(protocol_event, HttpEnd)
    ]
    assert [end.outcome for end in ends] == ["cut"] * 1000
    depth.data(UP, http2_streams(100))
    assert many.kept_bytes == 0
