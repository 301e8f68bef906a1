"""A session over flow sources of the test's own: how it stops, and what it says of it."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mitml4.address import Address
from mitml4.errors import MitmError
from mitml4.events import Event, FlowClose, FlowOpen, SessionStart, SessionStop
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.tcp import TcpStream
from mitml4.protocols.policy import Target
from mitml4.session.config import SessionConfig
from mitml4.session.destinations.policy import HostPattern, Policy
from mitml4.session.reporting.outputs import Outputs
from mitml4.session.session import Session
from mitml4.session.sources.source import SessionControl, SourceStart
from mitml4.sinks.commands import Measure, PassThrough, Refuse, Reset, Stop
from mitml4.sinks.updates import BytesMoved, ServerConnected, TlsSecret
from mitml4.tls.keys import KeyType
from tests.session.conftest import Arrived
from tests.streams import tcp_stream


class LoopbackSource:
    """Connections to a loopback port, bound for a server on loopback."""

    is_one_client = False
    container = None
    owners = None
    proxy = None
    sees_lookups = False
    dials_anywhere = False

    def __init__(self, port: int, sock: socket.socket) -> None:
        self.port = port
        self.backlog = sock
        self.socket = trio.socket.from_stdlib_socket(sock)
        self.address = sock.getsockname()
        self.closed = trio.Event()

    def start(self) -> SourceStart:
        name = f"lo:{self.address[1]}"
        return SourceStart(interfaces=(name,), listeners=(Address.of(self.address),))

    async def accept(self) -> Arrived:
        return self._arrival(*await self.socket.accept())

    def _arrival(self, sock: trio.socket.SocketType, peer: tuple[str, int]) -> Arrived:
        return Arrived(sock, Address.of(peer), Address("127.0.0.1", self.port))

    async def connect(self, *_to: object, **_how: object) -> TcpStream:
        return tcp_stream((await trio.open_tcp_stream("127.0.0.1", self.port)).socket)

    async def dial(self, address: Address) -> TcpStream:
        return tcp_stream((await trio.open_tcp_stream(address.ip, address.port)).socket)

    def is_here(self, _destination: Address) -> bool:
        return False

    def source_address(self, _connection: object, stream: TcpStream) -> Address:
        return Address.of(stream.socket.getsockname())

    def names_of(self, _destination: Address) -> tuple[str, ...]:
        return (f"by-{self.address[1]}.example",)

    async def outlive(self, _pid: int) -> None:
        pass

    async def watch(self, _session: SessionControl) -> None:
        await trio.sleep_forever()

    async def close(self) -> list[Arrived]:
        self.closed.set()
        waiting = []
        with suppress(BlockingIOError):
            while True:
                sock, peer = self.backlog.accept()
                waiting.append(self._arrival(trio.socket.from_stdlib_socket(sock), peer))
        return waiting


@pytest.fixture
async def flow_sources(nursery) -> AsyncIterator[list[LoopbackSource]]:
    """Two, each with its server."""

    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for chunk in stream:
                await stream.send_all(chunk)
            await stream.send_eof()

    with ExitStack() as stack:
        found = []
        for _ in range(2):
            servers = await nursery.start(trio.serve_tcp, echo, 0)
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            found.append(LoopbackSource(servers[0].socket.getsockname()[1], sock))
        yield found
    nursery.cancel_scope.cancel()


@pytest.fixture
def flow_source(flow_sources: list[LoopbackSource]) -> LoopbackSource:
    return flow_sources[0]


class Said:
    """What a session has told its user."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.errors: list[str] = []

    def complain(self, error: MitmError) -> None:
        self.errors.append(error.message)


def session_of(
    *sinks: object, display: object = None, said: Said | None = None, **options: Any
) -> Session:
    """A session with these sinks and no other output."""
    said = said or Said()

    def open_outputs(*_: object, **__: object) -> Outputs:
        return Outputs(display, sinks)

    config = SessionConfig(output="none", **options)
    return Session(config, said.notes.append, said.complain, open_outputs=open_outputs)


async def run(session: Session, *flow_sources: LoopbackSource) -> None:
    @asynccontextmanager
    async def opening() -> AsyncIterator[Sequence[LoopbackSource]]:
        yield flow_sources

    async def prepare(*_kinds: KeyType) -> None:
        return

    forge: Any = SimpleNamespace(prepare=prepare)
    interceptor = TlsInterceptor(
        forge=forge,
        contexts=None,
        verifier=None,
        passthrough_cache=None,
    )
    await session.run(opening(), interceptor, None)


class Kept:
    """A sink that keeps what it is given."""

    name = "kept"
    dropped = 0

    def __init__(self, *wants: type) -> None:
        self.wants = wants or (Event,)
        self.events: list[Any] = []
        self._over = trio.Event()

    def publish(self, event: object) -> None:
        self.events.append(event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await self._over.wait()

    async def aclose(self) -> None:
        self._over.set()


class Broken(Kept):
    """A sink that fails before it is ready."""

    name = "x"

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.lowlevel.checkpoint()
        raise self.failure


async def test_a_limit_reached_while_it_drains_does_not_hurry_it(
    flow_source: LoopbackSource, nursery
) -> None:
    session = session_of(duration_s=0.05, max_flows=1, drain_s=10)
    nursery.start_soon(run, session, flow_source)
    client = await trio.open_tcp_stream(*flow_source.address)
    with trio.fail_after(5):
        await flow_source.closed.wait()
        await trio.sleep(0.1)
        await client.send_all(b"\0still here")
        assert await client.receive_some() == b"\0still here"
        await client.send_eof()
        assert await client.receive_some() == b""
    await client.aclose()
    assert session.reason == "max flows"


async def test_a_second_stop_lets_go_of_open_flows(flow_source: LoopbackSource, nursery) -> None:
    session = session_of(max_flows=1, drain_s=10)
    nursery.start_soon(run, session, flow_source)
    client = await trio.open_tcp_stream(*flow_source.address)
    with trio.fail_after(5):
        await flow_source.closed.wait()
        session.stop("SIGINT")
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    await client.aclose()


async def answer(sock: socket.socket) -> bytes:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    await stream.send_all(b"\0hello")
    return await stream.receive_some()


@pytest.mark.parametrize("max_flows", [None, 3])
async def test_what_waits_in_the_backlog_when_it_stops_is_carried(
    flow_source: LoopbackSource, nursery, max_flows: int | None
) -> None:
    kept = Kept()
    session = session_of(kept, max_flows=max_flows)
    over = trio.Event()

    async def whole() -> None:
        await run(session, flow_source)
        over.set()

    nursery.start_soon(whole)
    with trio.fail_after(5):
        await wait_all_tasks_blocked()
        clients = [socket.create_connection(flow_source.address) for _ in range(20)]
        if max_flows is None:
            session.stop("SIGINT")
        for client in clients:
            assert await answer(client) == b"\0hello"
        for client in clients:
            client.close()
        await over.wait()
    assert [event.flow for event in kept.events if isinstance(event, FlowOpen)] == list(
        range(1, (max_flows or len(clients)) + 1)
    )
    assert kept.events[-1].flows == (max_flows or len(clients))


@pytest.fixture
async def visited(nursery, flow_source: LoopbackSource):
    """`await visited(session)`: run it, with one visit, and to its end."""

    async def visit(session: Session) -> None:
        over = trio.Event()

        async def whole() -> None:
            await run(session, flow_source)
            over.set()

        nursery.start_soon(whole)
        with trio.fail_after(5):
            await wait_all_tasks_blocked()
            if not session.is_stopping:
                client = socket.create_connection(flow_source.address)
                assert await answer(client) == b"\0hello"
                client.close()
            session.stop("SIGINT")
            await over.wait()

    return visit


FULL = MitmError("cannot write x: No space left on device")


async def test_an_output_that_fails_is_said_and_the_others_go_on(visited) -> None:
    said, kept = Said(), Kept()
    session = session_of(Broken(FULL), kept, said=said)
    await visited(session)
    assert said.errors == [FULL.message]
    assert session.cut_off == {"x"}
    assert session.reason == "SIGINT"
    assert [type(each) for each in kept.events].count(FlowClose) == 1


async def test_a_file_whose_reader_has_gone_is_said_and_no_failure(visited) -> None:
    said, kept = Said(), Kept()
    session = session_of(Broken(BrokenPipeError()), display=kept, said=said)
    await visited(session)
    assert (said.notes, said.errors) == (["note: nobody reads x any more"], [])
    assert not session.cut_off
    assert session.reason == "SIGINT"


@pytest.mark.parametrize(
    ("failure", "others", "reason"),
    [
        (BrokenPipeError(), True, "output closed"),  # `| head`
        (BrokenPipeError(), False, "output closed"),
        (FULL, False, "output failed"),
    ],
)
async def test_a_session_that_nobody_follows_any_more_ends(
    flow_source: LoopbackSource, failure: Exception, others: bool, reason: str
) -> None:
    """Also where that is known before the output is ready."""
    said = Said()
    session = session_of(*[Kept()] * others, display=Broken(failure), said=said)
    with trio.fail_after(5):
        await run(session, flow_source)
    assert session.reason == reason
    assert session.hub.totals.flows == 0
    assert said.notes == []
    assert bool(session.cut_off) == bool(said.errors) == (failure is FULL)


async def test_an_output_with_a_fault_of_ours_ends_the_session_with_it(
    flow_source: LoopbackSource,
) -> None:
    with (
        pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True),
        trio.fail_after(5),
    ):
        await run(session_of(Broken(ZeroDivisionError("a bug"))), flow_source)


@pytest.mark.parametrize(("fails", "reason"), [("accept", "failed"), ("close", "SIGINT")])
async def test_the_totals_are_the_last_event_of_a_session_that_fails(
    flow_source: LoopbackSource, monkeypatch: pytest.MonkeyPatch, fails: str, reason: str
) -> None:
    async def fail() -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(flow_source, fails, fail)
    kept = Kept()
    session = session_of(kept)

    async def stop() -> None:
        await wait_all_tasks_blocked()
        session.stop("SIGINT")

    with (
        pytest.RaisesGroup(OSError, flatten_subgroups=True, allow_unwrapped=True),
        trio.fail_after(5),
    ):
        async with trio.open_nursery() as nursery:
            if fails == "close":
                nursery.start_soon(stop)
            await run(session, flow_source)
    assert [type(event) for event in kept.events] == [SessionStart, SessionStop]
    assert kept.events[-1].reason == reason


async def test_several_sources_share_a_session(flow_sources, nursery) -> None:
    """Each dials for its own connections, and all are closed at the end."""
    kept = Kept(Event, ServerConnected)
    session = session_of(kept, max_flows=4)
    over = trio.Event()

    async def whole() -> None:
        await run(session, *flow_sources)
        over.set()

    nursery.start_soon(whole)
    with trio.fail_after(5):
        for source in flow_sources * 2:
            client = socket.create_connection(source.address)
            assert await answer(client) == b"\0hello"
            client.close()
        await over.wait()
    assert all(source.closed.is_set() for source in flow_sources)
    start = kept.events[0]
    assert isinstance(start, SessionStart)
    assert start.listeners == tuple(Address.of(source.address) for source in flow_sources)
    assert start.interfaces == tuple(f"lo:{source.address[1]}" for source in flow_sources)
    flows = [each for each in kept.events if isinstance(each, FlowOpen)]
    assert [each.flow for each in flows] == [1, 2, 3, 4]
    assert [(each.destination.port, each.name) for each in flows] == [
        (source.port, *source.names_of(each.destination))
        for source, each in zip(flow_sources * 2, flows, strict=True)
    ]
    connected = [each for each in kept.events if isinstance(each, ServerConnected)]
    assert [each.client for each in connected] == [each.client for each in flows]
    assert [each.destination.port for each in connected] == [
        each.destination.port for each in flows
    ]


async def test_secrets_go_to_the_key_log_and_to_the_sinks_that_want_them(tmp_path) -> None:
    line = b"CLIENT_RANDOM 00 11"
    assert session_of(Kept()).on_secret is None
    kept = Kept(TlsSecret)
    tell = session_of(kept).on_secret
    assert tell
    tell(line)
    assert kept.events == [TlsSecret(line)]
    config = SessionConfig(output="none", packets=tmp_path / "x", keylog=tmp_path / "keys")
    session = Session(config, print, print)
    assert session.on_secret
    session.on_secret(line)
    assert (tmp_path / "keys").read_bytes() == line + b"\n"


async def test_a_key_log_that_several_processes_cannot_write_is_told_of_once() -> None:
    complaints: list[MitmError] = []
    config = SessionConfig(output="none", keylog=Path("/dev/full"))
    session = Session(config, print, complaints.append)
    assert session.on_secret
    session.on_secret(b"CLIENT_RANDOM 00 11")
    (own,) = complaints
    session._lose_key_log(MitmError(own.message))  # what a worker has found out
    assert complaints == [own]


async def test_open_flows_are_measured_when_a_display_asks(flow_source, nursery) -> None:
    kept = Kept(BytesMoved)
    session = session_of(kept)
    nursery.start_soon(run, session, flow_source)
    with trio.fail_after(5):
        client = socket.create_connection(flow_source.address)
        assert await answer(client) == b"\0hello"
        session.handle(Measure((1, 2)))
        client.close()
    (moved,) = kept.events
    assert (moved.flow, moved.up, moved.down) == (1, 6, 6)
    session.handle(Stop())
    assert session.is_stopping
    assert session.reason == "q"


async def test_a_flow_is_reset_when_a_person_asks(flow_source, nursery) -> None:
    kept = Kept(FlowClose)
    session = session_of(kept)
    nursery.start_soon(run, session, flow_source)
    with trio.fail_after(5):
        client = socket.create_connection(flow_source.address)
        assert await answer(client) == b"\0hello"
        assert session.handle(Reset(1)) == "#1 is reset"
        await wait_all_tasks_blocked()
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    assert kept.events[0].reason == "reset"
    assert session.handle(Reset(1)) == "#1 has ended"
    session.handle(Stop())


def test_a_person_changes_the_policy() -> None:
    session = session_of(Kept(FlowClose))
    assert session.handle(Refuse("a.test")) == "a.test is blocked from now on"
    assert session.handle(Refuse("a.test")) == "a.test is allowed from now on"
    passed = session.handle(PassThrough("a.test"))
    assert passed == "TLS to a.test is passed through from now on"
    assert session.policy.decide([Target("a.test", 443)]).action == "passthrough"
    assert session.handle(PassThrough("a.test")) == "TLS to a.test is intercepted from now on"
    assert session.handle(Refuse("a b\x1b")) == "a b\\x1b is no host or address"


def test_what_an_option_still_blocks_or_passes_through_is_said_to_stay_so() -> None:
    policy = Policy(block=(HostPattern.parse("*.test"),), tls="passthrough")
    session = session_of(Kept(FlowClose), policy=policy)
    for _ in range(2):
        session.handle(Refuse("a.test"))
        said = session.handle(Refuse("a.test"))
        assert said == "a.test stays blocked: --block *.test"
    session.handle(PassThrough("a.example"))
    said = session.handle(PassThrough("a.example"))
    assert said == "TLS to a.example stays passed through: --tls passthrough"
