"""A session over an intake of the test's own: how it stops, and what it says of it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mitml4.address import Address
from mitml4.errors import MachineError
from mitml4.events import Event, FlowOpen, SessionStart
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.stream import TcpStream
from mitml4.session.config import SessionConfig
from mitml4.session.hub import Hub
from mitml4.session.session import Session
from mitml4.tls.keys import KeyType
from tests.session.conftest import Arrived


class FlowSource:
    """Connections to a loopback port, bound for a server on loopback."""

    def __init__(self, port: int, sock: socket.socket) -> None:
        self.port = port
        self.backlog = sock
        self.socket = trio.socket.from_stdlib_socket(sock)
        self.listeners = (self,)
        self.address = sock.getsockname()
        self.closed = trio.Event()

    async def accept(self) -> Arrived:
        return self._arrival(*await self.socket.accept())

    def _arrival(self, sock: trio.socket.SocketType, peer: tuple[str, int]) -> Arrived:
        return Arrived(sock, Address.of(peer), Address("127.0.0.1", self.port))

    async def connect(self, *_to: object, **_how: object) -> TcpStream:
        return TcpStream((await trio.open_tcp_stream("127.0.0.1", self.port)).socket)

    def name_of(self, _destination: Address) -> str | None:
        return None

    def start_event(self, _authority: object) -> SessionStart:
        return SessionStart(
            version="0",
            mode="intercept",
            interfaces=(),
            listeners=(),
            ca=None,
            table=None,
            pid=os.getpid(),
        )

    async def watch(self, _session: Session) -> None:
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
async def flow_source(nursery) -> AsyncIterator[FlowSource]:
    async def echo(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for chunk in stream:
                await stream.send_all(chunk)
            await stream.send_eof()

    servers = await nursery.start(trio.serve_tcp, echo, 0)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        yield FlowSource(servers[0].socket.getsockname()[1], sock)
    nursery.cancel_scope.cancel()


async def run(session: Session, flow_source: FlowSource) -> None:
    @asynccontextmanager
    async def making() -> AsyncIterator[FlowSource]:
        yield flow_source

    async def prepare(*_kinds: KeyType) -> None:
        return

    interceptor = TlsInterceptor(
        forge=SimpleNamespace(prepare=prepare),
        contexts=None,
        verifier=None,
        passthrough_cache=None,
        policy=lambda *_what: ("intercept", ""),
    )
    await session.run(making(), interceptor, None)  # type: ignore[arg-type]


async def test_a_limit_reached_while_it_drains_does_not_hurry_it(
    flow_source: FlowSource, nursery
) -> None:
    session = Session(SessionConfig(output="none", duration_s=0.05, max_flows=1, drain_s=10))
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


async def test_a_second_stop_lets_go_of_open_flows(flow_source: FlowSource, nursery) -> None:
    session = Session(SessionConfig(output="none", max_flows=1, drain_s=10))
    nursery.start_soon(run, session, flow_source)
    client = await trio.open_tcp_stream(*flow_source.address)
    with trio.fail_after(5):
        await flow_source.closed.wait()
        session.stop("SIGINT")
        with pytest.raises(trio.BrokenResourceError):
            await client.receive_some()
    await client.aclose()


async def test_an_output_that_fails_while_it_drains_is_still_a_failure(
    flow_source: FlowSource,
) -> None:
    session = Session(SessionConfig(output="none"))
    session.stop("SIGINT")
    session.output_lost("output failed", MachineError("no space left"))
    with pytest.raises(MachineError, match="no space left"), trio.fail_after(5):
        await run(session, flow_source)
    assert session.reason == "SIGINT"


async def answer(sock: socket.socket) -> bytes:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    await stream.send_all(b"\0hello")
    return await stream.receive_some()


@pytest.mark.parametrize("max_flows", [None, 3])
async def test_what_waits_in_the_backlog_when_it_stops_is_carried(
    flow_source: FlowSource, nursery, max_flows: int | None
) -> None:
    told: list[Event] = []
    session = Session(SessionConfig(output="none", max_flows=max_flows))
    session.hub = Hub([SimpleNamespace(wants=(Event,), publish=told.append, dropped=0)])
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
    assert [event.flow for event in told if isinstance(event, FlowOpen)] == list(
        range(1, (max_flows or len(clients)) + 1)
    )
    assert told[-1].flows == (max_flows or len(clients))


class Broken:
    """A sink that fails before it is ready."""

    wants = ()
    dropped = 0

    def __init__(self, failure: Exception) -> None:
        self.failure = failure

    def publish(self, event: Event) -> None:
        pass

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await trio.lowlevel.checkpoint()
        raise self.failure

    async def aclose(self) -> None:
        pass


async def test_an_output_that_fails_before_it_is_ready_ends_the_session(
    flow_source: FlowSource,
) -> None:
    session = Session(SessionConfig(output="none"))
    session.outputs = replace(
        session.outputs, sinks=(Broken(MachineError("no space left")), Broken(BrokenPipeError()))
    )
    with pytest.raises(MachineError, match="no space left"), trio.fail_after(5):
        await run(session, flow_source)
    assert session.reason == "output failed"
    assert session.hub.totals.flows == 0


async def test_a_reader_that_is_gone_before_the_output_is_ready_ends_it_quietly(
    flow_source: FlowSource,
) -> None:
    session = Session(SessionConfig(output="none"))
    session.outputs = replace(session.outputs, sinks=(Broken(BrokenPipeError()),))
    with trio.fail_after(5):
        await run(session, flow_source)
    assert session.reason == "output closed"


async def test_an_output_with_a_fault_of_ours_ends_the_session_with_it(
    flow_source: FlowSource,
) -> None:
    session = Session(SessionConfig(output="none"))
    session.outputs = replace(session.outputs, sinks=(Broken(ZeroDivisionError("a bug")),))
    with (
        pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True, allow_unwrapped=True),
        trio.fail_after(5),
    ):
        await run(session, flow_source)
