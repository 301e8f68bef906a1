"""Whatever two ends say, both get it as it was said: unchanged, whole, in order, with its end."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mitml4.events import FlowClose, FlowError, FlowOpen
from mitml4.protocols.conversation import Direction

UP, DOWN = Direction.UP, Direction.DOWN
HOLD_S = 0.01
STALLED_S = 5.0


class End(Enum):
    FIN = "fin"
    RESET = "reset"


FRAGMENTS = (
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"PUT /c HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"\x81\x85abcd\x09\x07\x0f\x08\x0e",
    b"\x81\x05hello\x88\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b"\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0",
    b"\5\1\0",
    b"\5\0",
    b"\5\1\0\3\6b.test\1\xbb",
    b"\5\0\0\1\x7f\0\0\1\0\x50",
    b"\4\1\0\x50\x7f\0\0\1\0",
    b"\0\x5a\0\0\0\0\0\0",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"220 mail.test ESMTP\r\n",
    b"220 ftp.test FTP\r\n",
    b"EHLO c.test\r\n",
    b"250-mail.test\r\n250 STARTTLS\r\n",
    b"STARTTLS\r\n",
    b"220 go\r\n",
    b"454 no\r\n",
    b"AUTH TLS\r\n",
    b"234 go\r\n",
    b"+OK ready\r\n",
    b"STLS\r\n",
    b"* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n",
    b"a STARTTLS\r\n",
    b"a OK go\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\0\0\1\x0c\x05\x14",
    b"\x4a\0\0\0\x0a8.0.36\0\1\0\0\0abcdefgh\0\xff\xff\xff\2\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0"
    b"ijklmnopqrst\0caching_sha2_password\0",
    b"\x20\0\0\1\x05\xae\xff\1\0\0\0\1\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"S",
    b"N",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x16\x03\x01\x00\x05hello",
    b"\x16\x03",
    b"\x80\x2e\x01\x03\x01",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b"RFB 003.008\n",
    b"@RSYNCD: 31.0\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"+PONG\r\n",
    b"NICK me\r\nUSER me 0 * :Me\r\n",
    b"<?xml version='1.0'?><stream:stream to='a' xmlns='jabber:client'>",
    b"\x10\x0e\0\x04MQTT\4\2\0\x3c\0\2me",
    b"AMQP\0\0\x09\1",
    b"\3\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0",
    b"0\x0c\2\1\1`\7\2\1\3\4\0\x80\0",
    b"0\x1d\2\1\1w\x18\x80\x161.3.6.1.4.1.1466.20037",
    b"\xff\xfd\x18\xff\xfb\x01",
    b"\n",
    b" ",
)

speech = st.lists(
    st.one_of(
        st.sampled_from(FRAGMENTS),
        st.binary(max_size=40),
        st.builds(bytes, st.sampled_from((100, 20_000, 70_000, 200_000))),
    ),
    min_size=1,
    max_size=3,
).map(b"".join)


@dataclass(frozen=True)
class Say:
    direction: Direction
    data: bytes
    cuts: tuple[int, ...]
    pause_s: float

    @property
    def pieces(self) -> list[bytes]:
        at = sorted({cut % (len(self.data) + 1) for cut in self.cuts} | {0, len(self.data)})
        return [self.data[here:there] for here, there in pairwise(at)]


says = st.builds(
    Say,
    st.sampled_from(Direction),
    speech,
    st.lists(st.integers(0, 1000), max_size=3).map(tuple),
    st.sampled_from((0.0, 0.0, 0.0, 0.001, 1.5 * HOLD_S)),
)


@dataclass
class Side:
    """One end: what it has said and heard, and how what it heard has ended."""

    stream: trio.SocketStream
    heard: bytearray = field(default_factory=bytearray)
    end: End | None = None
    news: trio.Event = field(default_factory=trio.Event)

    async def listen(self) -> None:
        try:
            async for chunk in self.stream:
                self.heard += chunk
                self._tell()
            self.end = End.FIN
        except trio.BrokenResourceError:
            self.end = End.RESET
        except trio.ClosedResourceError:
            return
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = trio.Event()

    async def say(self, what: Say) -> None:
        for piece in what.pieces:
            await self.stream.send_all(piece)
            await trio.sleep(what.pause_s)

    async def hear(self, count: int) -> None:
        while len(self.heard) < count and self.end is None:
            await self.news.wait()

    async def hear_end(self) -> None:
        while self.end is None:
            await self.news.wait()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.stream.socket.close()


@pytest.fixture
def conversation(lab, monkeypatch):
    """`async with conversation(script)`: both ends connected through the proxy."""
    monkeypatch.setattr("mitml4.layers.tls._HELLO_S", HOLD_S)

    async def hold(script) -> None:
        accepted, over = trio.Event(), trio.Event()
        sides: dict[Direction, Side] = {}

        async def serve(stream: trio.SocketStream) -> None:
            sides[DOWN] = Side(stream)
            accepted.set()
            await over.wait()

        async with lab(serve, hold_s=HOLD_S) as proxy:
            sides[UP] = Side(await proxy.connect())
            await accepted.wait()
            with trio.fail_after(STALLED_S):
                async with trio.open_nursery() as nursery:
                    for side in sides.values():
                        nursery.start_soon(side.listen)
                    await script(sides)
                await proxy.wait_closed()
            over.set()
        assert [len(proxy.of(kind)) for kind in (FlowOpen, FlowClose)] == [1, 1]
        assert not [error for error in proxy.of(FlowError) if error.kind == "internal"]
        return proxy.of(FlowClose)[0]

    return hold


def said(steps: list[Say], direction: Direction) -> bytes:
    return b"".join(step.data for step in steps if step.direction is direction)


many = settings(
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],  # an example takes seconds once it fails
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@many
@given(steps=st.lists(says, max_size=8))
async def test_two_ends_that_do_not_wait_for_each_other(conversation, steps: list[Say]) -> None:
    async def script(sides: dict[Direction, Side]) -> None:
        async def speak(direction: Direction) -> None:
            for step in steps:
                if step.direction is direction:
                    await sides[direction].say(step)
            await sides[direction].stream.send_eof()

        async with trio.open_nursery() as nursery:
            for direction in Direction:
                nursery.start_soon(speak, direction)
        for direction in Direction:
            side = sides[direction]
            await side.hear_end()
            assert (bytes(side.heard), side.end) == (said(steps, direction.other), End.FIN)
        for side in sides.values():
            await side.stream.aclose()

    close = await conversation(script)
    assert close.reason == "closed"
    assert (close.bytes_up, close.bytes_down) == (len(said(steps, UP)), len(said(steps, DOWN)))


@many
@given(
    steps=st.lists(says, max_size=8),
    last=st.sampled_from(Direction),
    end=st.sampled_from(End),
)
async def test_two_ends_that_take_turns(
    conversation, steps: list[Say], last: Direction, end: End
) -> None:
    async def script(sides: dict[Direction, Side]) -> None:
        count = {UP: 0, DOWN: 0}
        for step in steps:
            await sides[step.direction].say(step)
            count[step.direction] += len(step.data)
            await sides[step.direction.other].hear(count[step.direction])
        if end is End.FIN:
            await sides[last].stream.send_eof()
        else:
            sides[last].reset()
        far = sides[last.other]
        await far.hear_end()
        assert (bytes(far.heard), far.end) == (said(steps, last), end)
        assert bytes(sides[last].heard) == said(steps, last.other)
        await far.stream.aclose()
        if end is End.FIN:
            await sides[last].hear_end()
            assert sides[last].end is End.FIN
            await sides[last].stream.aclose()

    close = await conversation(script)
    assert close.reason == ("closed" if end is End.FIN else "reset")


async def test_a_hello_that_offers_no_cipher_is_none_to_be_opened(conversation) -> None:
    hello = b"\x16\3\1\2\0\1\0\1\xfc\3\3" + bytes(506)

    async def script(sides: dict[Direction, Side]) -> None:
        await sides[UP].stream.send_all(hello)
        await sides[DOWN].hear(len(hello))
        assert bytes(sides[DOWN].heard) == hello
        for side in sides.values():
            await side.stream.send_eof()
        for side in sides.values():
            await side.hear_end()
        for side in sides.values():
            await side.stream.aclose()

    assert (await conversation(script)).stack == ("tls",)
