"""Copies of what moves in opened TLS: each byte once, in order, of the innermost layer alone."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mitml4.engine.actions import HandOver, Switch
from mitml4.engine.plaintext import Plaintext, PlaintextBegun, PlaintextMoved
from mitml4.engine.replay import Step
from mitml4.engine.rules import HOLD_S
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.memory import memory_pair
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction, Target
from mitml4.protocols.policy import FlowPolicy

UP, DOWN = Direction.UP, Direction.DOWN
ENDS: list[Step] = [(UP, None), (DOWN, None)]
HELLO = b"\x16\x03\x01\0\x30\x01\0\0\x2c\x03\x03" + bytes(32) + b"\0\0\x02\x13\x01\x01\0"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(range(200)) * 1000
FRAME = b"\x81\x03abc"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
CONNECT = b"CONNECT b:8443 HTTP/1.1\r\nHost: b:8443\r\n\r\n"
SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


class Tls:
    """A flow whose outermost TLS has been opened, between two ends in memory."""

    def __init__(self) -> None:
        self.told: list[PlaintextBegun | PlaintextMoved] = []
        self.client, near = memory_pair(1 << 20)
        far, self.server = memory_pair(1 << 20)
        report = Report(1, self._publish)
        report.enter(0, "tls")
        outer = Bridge.between(
            near, far, relay=Relay(), report=report, policy=FlowPolicy(), copies=self._copies
        )
        self.bridge = outer.inside_tls(near, far, 443)
        self.context = LayerContext(
            clock=trio.current_time, stack=("tls",), target=Target("a", 443), hold_s=HOLD_S
        )
        self.found_tls = False
        self.received = {UP: b"", DOWN: b""}

    def _copies(self, port: int | None) -> Plaintext:
        return Plaintext(self._publish, time.time_ns, flow=1, port=port)

    def _publish(self, event: object) -> None:
        if isinstance(event, (PlaintextBegun, PlaintextMoved)):
            self.told.append(event)

    async def follow(self) -> None:
        """Layer by layer, until a TLS begins or all is over."""
        while True:
            engine = await Follower(self.bridge, self.context).detect()
            if not isinstance(engine.outcome, Switch):
                self.found_tls = isinstance(engine.outcome, HandOver)
                break
            self.bridge = self.bridge.inner(engine.outcome.inner)
            self.context = engine.inner_context()
        if not self.found_tls:
            self.bridge.flush_copies()

    async def play(self, script: list[Step], chunk: int) -> None:
        for direction, data in script:
            stream = self.client if direction is UP else self.server
            if data is None:
                await stream.send_eof()
            for at in range(0, len(data or b""), chunk):
                await stream.send_all(memoryview(data or b"")[at : at + chunk])
                await wait_all_tasks_blocked()
                self._drain()
            await wait_all_tasks_blocked()
            self._drain()

    def _drain(self) -> None:
        for direction, stream in ((UP, self.server), (DOWN, self.client)):
            data = stream.peek_nowait(1 << 20)
            stream.discard(len(data))
            self.received[direction] += data

    @property
    def said(self) -> list[Step]:
        """What was told, neighbours of one direction in one piece; None: an end."""
        said: list[Step] = []
        for each in self.told:
            if isinstance(each, PlaintextBegun):
                continue
            if said and said[-1][0] is each.direction and each.data and said[-1][1]:
                said[-1] = (each.direction, said[-1][1] + each.data)
            else:
                said.append((each.direction, each.data or None))
        return said

    @property
    def begun(self) -> list[tuple[str | None, int | None]]:
        return [
            (each.protocol, each.port) for each in self.told if isinstance(each, PlaintextBegun)
        ]


SCRIPTS: dict[str, tuple[str, list[Step]]] = {
    "requests": ("http/1", [(UP, GET), (DOWN, BIG), (UP, GET), (DOWN, BIG)]),
    "frames": (
        "websocket",
        [(UP, UPGRADE), (DOWN, SWITCHED + FRAME), (UP, FRAME), (DOWN, FRAME * 9)],
    ),
    "http/2": ("http/2", [(UP, SETTINGS), (DOWN, SETTINGS[24:]), (UP, SETTINGS[24:])]),
    "unknown": ("unknown", [(UP, b"\0\1\2\3" * 50_000), (DOWN, b"\xff" * 100_000), (UP, b"more")]),
    "the server first": ("unknown", [(DOWN, b"\0\1hello"), (UP, b"\0\2you"), (DOWN, b"bye")]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
async def test_what_moves_is_told_once_and_in_order(name: str, autojump_clock: object) -> None:
    protocol, script = SCRIPTS[name]
    is_long = sum(len(data or b"") for _, data in script) > 1000
    for chunk in (1 << 20, 4093 if is_long else 7):
        tls = Tls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.follow)
            await tls.play([*script, *ENDS], chunk)
        assert tls.said == [*script, *ENDS], chunk
        sent = {
            each: b"".join(data or b"" for way, data in script if way is each) for each in Direction
        }
        assert tls.received == sent
        assert [name for name, _ in tls.begun] == [protocol]


async def test_what_comes_before_an_inner_tls_that_is_opened(autojump_clock: object) -> None:
    """It is not told; where the inner TLS is passed through, all is, at once with what follows."""
    before: list[Step] = [(UP, CONNECT), (DOWN, b"HTTP/1.1 200 OK\r\n\r\n")]
    for is_opened in (True, False):
        tls = Tls()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.follow)
            await tls.play([*before, (UP, HELLO)], 1 << 20)
        assert tls.found_tls
        assert tls.told == []
        assert tls.context.port == 8443
        if is_opened:
            inner = tls.bridge.inside_tls(tls.bridge.client_side, tls.bridge.server_side, 8443)
            inner.flush_copies()
            assert tls.begun == [(None, 8443)]
            assert tls.said == []
        else:
            tls.bridge.flush_copies()
            assert tls.said == before
            assert tls.begun == [(None, 443)]


async def test_copies_of_what_stays_undecided_are_bounded(autojump_clock: object) -> None:
    tls = Tls()
    plaintext = tls.bridge.plaintext
    assert plaintext
    for _ in range(9):
        plaintext.moved(UP, bytes(8192))
    assert sum(len(data or b"") for _, data in tls.said) == 9 * 8192
    plaintext.moved(UP, b"more")
    assert len(tls.told) == 10


def test_nothing_is_copied_where_nobody_asks() -> None:
    stream, _ = memory_pair(1)
    report = Report(1, lambda _event: None)
    outer = Bridge.between(stream, stream, relay=Relay(), report=report, policy=FlowPolicy())
    inside = outer.inside_tls(stream, stream, 443)
    assert (inside.plaintext, inside.up.on_moved, inside.down.on_moved) == (None, None, None)
