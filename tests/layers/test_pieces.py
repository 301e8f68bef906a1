"""What comes in one piece leaves in one, whatever is read in it, and however long that takes.

A far side may read once where it expects a message, as many servers of SOCKS do.
"""

from __future__ import annotations

from itertools import product

import pytest
import trio
from OpenSSL import SSL
from trio.testing import wait_all_tasks_blocked

from mitml4.engine import interpreter
from mitml4.engine.actions import Switch
from mitml4.engine.meter import WORK_S
from mitml4.engine.replay import Step
from mitml4.layers.bridge import Bridge
from mitml4.layers.converse import Follower
from mitml4.layers.relay import Relay
from mitml4.layers.report import Report
from mitml4.net.memory import MemoryStream, memory_pair
from mitml4.payload.budget import SessionPayload
from mitml4.protocols.context import LayerContext
from mitml4.protocols.conversation import Direction
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import FlowPolicy
from mitml4.protocols.tls.records import RecordType
from mitml4.tls.bridged_stream import BridgedStream
from mitml4.tls.offer import prepare
from mitml4.tls.stream import tls_over
from tests.engine.test_splits import GET, HELLO, SCRIPTS
from tests.layers.conftest import HELLO as CLIENT_HELLO
from tests.layers.conftest import End, FlowLab, note_sent
from tests.tls.bridge.ends import Far

UP, DOWN = Direction.UP, Direction.DOWN
DATA = RecordType.APPLICATION_DATA

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
IN_PARTS = {
    "a request that breaks off",
    "http-connect, refused, and a request that waits",
    "smtp, refused, and commands that wait",
}
"""What may not move before the other side has answered leaves later."""
PIECES: dict[str, list[Step]] = {
    name: script for name, script in SCRIPTS.items() if name not in IN_PARTS
} | {
    "socks5 with a password": [
        (UP, b"\x05\x02\x00\x02"),
        (DOWN, b"\x05\x02"),
        (UP, b"\x01\x05alice\x05wrong"),
        (DOWN, b"\x01\x01"),
    ],
    "socks4": [(UP, b"\x04\x01\0\x50\0\0\0\x07me\0a.test\0"), (DOWN, b"\0\x5a" + bytes(6))],
    "a proxy's header": [(UP, b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 80\r\n" + GET)],
    "requests": [(UP, GET * 10), (DOWN, b"HTTP/1.1 204 No Content\r\n\r\n" * 10)],
    "a body": [(UP, POST), (UP, b"a"), (UP, b"bc" + GET)],
    "chunks": [
        (UP, GET),
        (DOWN, CHUNKED + b"5\r\nhello\r\n7\r\n wo"),
        (DOWN, b"rld!\r\n3\r\nbye\r\n9\r\n"),
        (DOWN, b"and on it\r\n0\r\n\r\n"),
    ],
    "commands": [
        (DOWN, b"220 mx.example ESMTP\r\n"),
        (UP, b"EHLO me\r\n"),
        (DOWN, b"250-mx.example\r\n250 PIPELINING\r\n"),
        (UP, b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n"),
        (DOWN, b"250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n"),
    ],
    "literals": [
        (DOWN, b'"IMPLEMENTATION" {7}\r\nDovecot\r\n"SASL" {5}\r\nPLAIN\r\n"STARTTLS"\r\nOK\r\n'),
        (UP, b'AUTHENTICATE "PLAIN" {6+}\r\nAGEAYg\r\nNOOP\r\n'),
    ],
    "rsync": [(DOWN, b"@RSYNCD: 31.0\n"), (UP, b"@RSYNCD: 31.0\nhome\n")],
    "postgresql": [
        (UP, b"\0\0\0\x14\0\x03\0\0user\0alice\0\0"),
        (DOWN, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"),
        (UP, b"P\0\0\0\x10\0select 1\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0S\0\0\0\x04"),
    ],
    "mqtt": [
        (UP, b"\x10\x0e\0\4MQTT\4\2\0<\0\2me\x30\x06\0\1thi!\xc0\0"),
        (DOWN, b" \2\0\0\xd0\0"),
    ],
}


class Ends:
    """A client and a server, between which each layer is followed."""

    def __init__(self) -> None:
        self.client, near = memory_pair(1 << 20)
        far, self.server = memory_pair(1 << 20)
        self.pieces: list[bytes] = []
        """What was sent to either of them."""
        for end in (near, far):
            note_sent(end, self.pieces)
        report = Report(1, lambda _event: None)
        report.enter(0, "any")
        self.bridge = Bridge.between(near, far, relay=Relay(), report=report, policy=FlowPolicy())

    async def follow(self, context: LayerContext) -> None:
        bridge = self.bridge
        while True:
            engine = await Follower(bridge, context).detect()
            if not isinstance(engine.outcome, Switch):
                return
            bridge, context = bridge.inner(engine.outcome.inner), engine.inner_context()

    async def say(self, direction: Direction, data: bytes) -> list[bytes]:
        """The pieces in which it is sent on at once."""
        self.pieces.clear()
        await (self.client if direction is UP else self.server).send_all(memoryview(data))
        await wait_all_tasks_blocked()
        return self.pieces


def test_a_request_that_comes_with_finished_leaves_with_ours(flow_lab: FlowLab) -> None:
    pieces: list[bytes] = []

    async def client(end: End) -> None:
        stream = tls_over(end.stream, end.contexts.client)
        prepare(stream.connection, CLIENT_HELLO)
        connection = stream.connection
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                await end.send(connection.bio_read(1 << 16))
                connection.bio_write(await end.receive_some())
        connection.send(GET)
        await end.send(connection.bio_read(1 << 16))
        end.stream = stream
        await end.expect(b"hello")
        await end.send_eof()

    async def server(end: End) -> None:
        assert isinstance(end.stream, MemoryStream)
        note_sent(end.stream.far, pieces)
        await end.start_tls(as_server=True)
        await end.expect(GET)
        await end.send(b"hello")
        await end.expect_eof()

    out = flow_lab.run(client, server)
    out.check()
    assert out.met == {"client": "all", "server": "all"}
    [answer] = [each for each in pieces if each[0] == RecordType.CHANGE_CIPHER_SPEC]
    kinds = []
    while answer:
        kinds.append(answer[0])
        answer = answer[5 + int.from_bytes(answer[3:5], "big") :]
    assert kinds == [RecordType.CHANGE_CIPHER_SPEC, DATA, DATA]


@pytest.mark.parametrize("script", [b"HTTP/1.1 200 OK\r\n\r\nhello", b"some other bytes"])
@pytest.mark.parametrize("is_closed", [False, True])
async def test_the_end_of_tls_leaves_with_the_bytes_before_it(
    script: bytes, is_closed: bool
) -> None:
    """And the end of the connection too, if that has come with them."""
    client, near = memory_pair()
    far, server = memory_pair()
    to_client, client_tls = Far.of_new(is_client=False)
    to_server, server_tls = Far.of_new()
    pieces: list[bytes] = []
    report = Report(1, lambda _event: None)
    report.enter(0, "any")
    bridge = Bridge.between(
        BridgedStream(near, to_client),
        BridgedStream(far, to_server),
        relay=Relay(),
        report=report,
        policy=FlowPolicy(),
    )
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            context = LayerContext(clock=trio.current_time)
            nursery.start_soon(Follower(bridge, context).detect)
            await client.send_all(memoryview(client_tls.data(GET)))
            await wait_all_tasks_blocked()
            assert server_tls.read(server.peek_nowait(1 << 16)) == [(DATA, GET)]
            note_sent(near, pieces)
            said = server_tls.data(script) + server_tls.alert(1, 0)
            await server.send_all(memoryview(said))
            if is_closed:
                await server.send_eof()
            await wait_all_tasks_blocked()
            assert [client_tls.read(each) for each in pieces] == [
                [(DATA, script), (RecordType.ALERT, b"\1\0")]
            ]
            assert client.has_ended() == is_closed
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", PIECES)
async def test_what_comes_in_one_piece_leaves_in_one(monkeypatch, name: str) -> None:
    """Also where it is shown, and if each message takes longer to read than a turn may."""
    for is_shown, work_s in product((False, True), (WORK_S, -1.0)):
        monkeypatch.setattr(interpreter, "WORK_S", work_s)
        shown = Shown(payload=SessionPayload().of_flow() if is_shown else None)
        ends = Ends()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                ends.follow, LayerContext(clock=trio.current_time, hold_s=60, shown=shown)
            )
            for direction, data in PIECES[name]:
                assert data
                pieces = await ends.say(direction, data)
                assert pieces == ([] if data == HELLO else [data])  # whoever ends TLS sends that
            nursery.cancel_scope.cancel()
