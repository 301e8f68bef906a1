"""The HTTP family against scraps of its own grammar, which random bytes would never form.

Whatever comes, in whatever pieces: only ProtocolError, the same outcome, and bounded memory.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitml4.engine.engine import Engine
from mitml4.engine.replay import Record, Replay
from mitml4.engine.rules import Rules
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Conversation, Direction
from mitml4.protocols.http.connect import HttpConnect
from mitml4.protocols.http.events import HttpEnd
from mitml4.protocols.http.http1 import Http1
from mitml4.protocols.http.http2 import Http2
from mitml4.protocols.http.http2_wire import PREFACE
from mitml4.protocols.http.websocket import WebSocket

UP, DOWN = Direction.UP, Direction.DOWN
Script: TypeAlias = list[tuple[Direction, bytes]]

USUAL = (
    *(b"Host: a\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\n"),
)
FIELDS = (
    *USUAL,
    *(b"Content-Length: x\r\n", b"Transfer-Encoding: gzip\r\n", b" folded\r\n", b"no colon\n"),
    *(b":\r\n", b"\xff: \x00\r\n"),
)
CHUNKS = (b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"2;x=y\nab\n", b"-1\r\n", b"fff")
BODIES = (b"", b"abc", *CHUNKS, *(a + b for a in CHUNKS for b in CHUNKS))
REQUESTS = (
    *(b"GET / HTTP/1.1", b"PUT / HTTP/1.1", b"HEAD http://a/ HTTP/1.0", b"CONNECT a:1 HTTP/1.1"),
    *(b"PUT x", b"\r"),
)
STATUSES = (b"100", b"101", b"200", b"204", b"304", b"407", b"2x")


def messages(starts: Iterable[bytes]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda start, fields, body: start + b"\r\n" + b"".join(fields) + b"\r\n" + body,
        st.sampled_from(list(starts)),
        st.lists(st.sampled_from(USUAL), max_size=2, unique=True)
        | st.lists(st.sampled_from(FIELDS), max_size=3),
        st.one_of(st.sampled_from(BODIES), st.binary(max_size=6)),
    )


http1_steps = st.one_of(
    st.tuples(st.just(UP), messages(REQUESTS)),
    st.tuples(st.just(DOWN), messages(b"HTTP/1.1 " + status + b" x" for status in STATUSES)),
)


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


BLOCKS = (
    b"\x82\x86\x84\x41\x01a",
    b"\x88",
    b"\x3f\xe1\x1f\x88",
    b"\x40\x01a\x01b",
    b"\xbe",
    b"\x8f",
)
odd_frames = st.builds(
    http2_frame,
    st.sampled_from((0, 0, 1, 1, 1, 3, 4, 5, 7, 9, 0x2A)),
    st.sampled_from((0, 1, 4, 5, 8, 9, 0x24, 0x2D, 0xFF)),
    st.integers(0, 4),
    st.one_of(
        st.lists(st.sampled_from(BLOCKS), max_size=3).map(b"".join),
        st.sampled_from(BLOCKS).map(lambda block: b"\0\0\0\x02" + block),
        st.binary(max_size=12),
    ),
)
OF_ALL = (
    *((0, 0, b"body"), (0, 8, b"\1a\0"), (0, 1, b"end"), (3, 0, b"\0\0\0\x08")),
    *((8, 0, b"\0\0\0\1"), (1, 5, b"\x40\x01a\x01b"), (0x2A, 0, b"unknown")),
)
HEADS = {
    UP: ((1, 4, BLOCKS[0]), (1, 5, BLOCKS[0]), (1, 0x24, b"\0\0\0\0\x10" + BLOCKS[0])),
    DOWN: ((1, 4, BLOCKS[1]), (1, 5, BLOCKS[1]), (1, 4, BLOCKS[2])),
}
usual_frames = st.sampled_from(Direction).flatmap(
    lambda direction: st.builds(
        lambda frame, stream: (direction, http2_frame(frame[0], frame[1], stream, frame[2])),
        st.sampled_from((*HEADS[direction] * 2, *OF_ALL)),
        st.sampled_from((1, 3, 5)),
    )
)
http2_steps = st.tuples(st.sampled_from(Direction), st.lists(odd_frames, max_size=3).map(b"".join))
http2_scripts = st.builds(
    lambda usual, odd: [
        *((UP, PREFACE + b"\0\0\0\4\0\0\0\0\0"), (DOWN, b"\0\0\0\4\0\0\0\0\0")),
        *(usual + odd),
    ],
    st.lists(usual_frames, max_size=12),
    st.just([]) | st.lists(http2_steps, max_size=4),
)
"""Frames that are mostly right, and then any: the first that is wrong is the last that is read."""

odd_websocket_frames = st.builds(
    lambda first, size, payload: bytes([first, size]) + payload,
    st.sampled_from((0x01, 0x00, 0x80, 0x81, 0x82, 0xC1, 0x88, 0x89, 0x8A, 0x83, 0x09)),
    st.sampled_from((0, 1, 3, 0x83, 126, 127, 0xFE)),
    st.binary(max_size=8),
)


def websocket_message(direction: Direction, kinds: tuple[int, ...], content: bytes) -> bytes:
    """Of frames that begin so; a client's are masked, with zeros."""
    mask, key = (0x80, bytes(4)) if direction is UP else (0, b"")
    return b"".join(bytes([kind, mask | len(content)]) + key + content for kind in kinds)


websocket_messages = st.builds(
    lambda direction, kinds, content: (direction, websocket_message(direction, kinds, content)),
    st.sampled_from(Direction),
    st.sampled_from(((0x81,), (0x82,), (1, 0, 0x80), (2, 0x89, 0x80), (0x8A,), (0x88,))),
    st.binary(max_size=8),
)
websocket_scripts = st.builds(
    lambda usual, odd: usual + odd,
    st.lists(websocket_messages, max_size=6),
    st.just([]) | st.lists(st.tuples(st.sampled_from(Direction), odd_websocket_frames)),
)

Begin: TypeAlias = Callable[[], Conversation]
FAMILY: dict[str, tuple[Begin, st.SearchStrategy[Script]]] = {
    "http/1": (Http1, st.lists(http1_steps, max_size=8)),
    "http-connect": (HttpConnect, st.lists(http1_steps, max_size=8)),
    "http/2": (Http2, http2_scripts),
    "h2c": (lambda: Http2(context=LayerContext(stack=("http/1",))), http2_scripts),
    "websocket": (WebSocket, websocket_scripts),
}
each_member = pytest.mark.parametrize("name", FAMILY)


class Driver:
    """A conversation, driven by the engine."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.record = Record()
        context = replace(conversation.context, hold_s=math.inf)
        engine = Engine(Rules(), self.record, context)
        engine.follow(conversation)
        self.replay = Replay(engine, goes_inside=False)

    def arrive(self, direction: Direction, data: bytes) -> None:
        self.replay.play([(direction, data)])

    @property
    def broken(self) -> bool:
        return bool(self.record.faults)


def drive(begin: Begin, script: Script, size: int | None = None) -> Driver:
    driver = Driver(begin())
    for direction, data in script:
        step = size or len(data) or 1
        for start in range(0, len(data), step):
            driver.arrive(direction, data[start : start + step])
    return driver


def told(driver: Driver) -> list[object]:
    """The events. Where the flow has broken, how much of an exchange came before the break depends
    on the pieces: one side's bytes break it between two pieces of the other's."""
    events: list[Any] = [event for _, event in driver.record.protocol_events]
    if not driver.broken:
        return events
    return [
        replace(event, request_bytes=0, response_bytes=0)
        if isinstance(event, HttpEnd) and event.outcome == "cut"
        else event
        for event in events
    ]


@each_member
@settings(max_examples=max(60, settings().max_examples))
@given(data=st.data(), size=st.integers(1, 9))
def test_any_scraps_mean_the_same_however_they_are_split(
    name: str, data: st.DataObject, size: int
) -> None:
    begin, scripts = FAMILY[name]
    script = data.draw(scripts)
    whole, pieces = drive(begin, script), drive(begin, script, size)
    assert pieces.broken == whole.broken
    assert told(pieces) == told(whole)
    assert pieces.conversation.details() == whole.conversation.details()
    if not whole.broken:
        assert pieces.replay.kept == whole.replay.kept
        directives = (whole.conversation.up, whole.conversation.down)
        assert (pieces.conversation.up, pieces.conversation.down) == directives


FLOODS: dict[str, tuple[str, bytes, bytes]] = {
    "requests": ("http/1", b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "fields": ("http/1", b"GET / HTTP/1.1\r\n", b"A: b\r\n"),
    "folds": ("http/1", b"GET / HTTP/1.1\r\nA: b", b"\r\n "),
    "chunks": ("http/1", b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "trailers": (
        "http/1",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"A: b\r\n",
    ),
    "streams": (
        *("http/2", b""),
        b"".join(http2_frame(1, 4, n, b"\x82\x86\x84\x41\x01a") for n in range(1, 6000, 2)),
    ),
    "continuations": ("http/2", http2_frame(1, 0, 1, b""), http2_frame(9, 0, 1, b"\0\1a\1b")),
    "empty continuations": ("http/2", http2_frame(1, 0, 1, b""), http2_frame(9, 0, 1, b"")),
    "table": ("http/2", b"", http2_frame(1, 4, 1, b"\x40\x01a\x7f\x81\x0f" + b"b" * 2048)),
    "settings": ("http/2", b"", http2_frame(4, 0, 0, b"\0\1\xff\xff\xff\xff")),
    "data": ("http/2", b"", http2_frame(0, 0, 1, bytes(1000))),
    "fragments": ("websocket", b"\x01\x00", b"\x00\x03abc"),
    "pings": ("websocket", b"", b"\x89\x7d" + bytes(125)),
}


def deep_size(value: object, seen: set[int]) -> int:
    """What a conversation occupies, with all that it alone refers to."""
    if id(value) in seen or isinstance(value, type | Callable):
        return 0
    seen.add(id(value))
    parts: list[object] = []
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray):
        parts = list(value)
    else:
        names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [getattr(value, name) for name in names if hasattr(value, name)]
        parts += list(getattr(value, "__dict__", {}).values())
    return sys.getsizeof(value) + sum(deep_size(part, seen) for part in parts)


def test_a_flood_is_kept_within_bounds() -> None:
    for name in FLOODS:
        member, start, unit = FLOODS[name]
        begin, _ = FAMILY[member]
        driver = Driver(begin())
        if member == "http/2":
            driver.arrive(UP, PREFACE + b"\0\0\0\4\0\0\0\0\0")
        driver.arrive(UP, start)
        flood = unit * (50_000 // len(unit) + 1)
        for _ in range(8):
            driver.arrive(UP, flood)
            driver.record.protocol_events.clear()
        assert deep_size(driver.conversation, set()) < 1_000_000
