"""The course of a session: sinks, then an intake, then flows; and all away again, in that order.

Where connections come from, and how they leave, is the intake's part: rules on the host
(session/intercept.py), or a namespace of a command's own (session/run.py).

Stopping has two stages. The first lets go of new connections at once and of open ones after
`--drain`; the second at once. Whatever the way, the intake is gone before `session.stop` is said.
"""

from __future__ import annotations

import gc
import math
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import ClassVar, Final, Protocol, TypeAlias

import trio

from mitml4.address import Address
from mitml4.errors import MitmError
from mitml4.events import CertificateAuthority as Authority
from mitml4.events import SessionStart
from mitml4.layers.bridge import first_of
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net import urgent
from mitml4.net.listener import IncomingConnection
from mitml4.net.splice import PipePool
from mitml4.net.stream import TcpStream
from mitml4.net.tap import Tap
from mitml4.protocols.policy import without_interception
from mitml4.session.config import SessionConfig
from mitml4.session.crowd import Crowd, Limits
from mitml4.session.flow import Flow, Services
from mitml4.session.hub import Hub
from mitml4.session.outputs import Outputs
from mitml4.sinks.sink import Counters, Sink
from mitml4.tls.keys import KeyType

__all__ = ["Connect", "FlowSource", "Session", "Source", "prepare_process"]

Connect: TypeAlias = Callable[[IncomingConnection], Awaitable[TcpStream]]

_SWITCH_S: Final = 0.0005
"""How long a thread that writes events may keep the interpreter, each time that a flow has let go
of it for a system call. Python's own is ten times that, and an answer takes some ten calls.
"""
_COLLECT: Final = (5_000, 5, 1_000)
"""gc.set_threshold: often among what is young, hardly ever among all: with 3,000 flows open that
took 160 ms. A flow that is over leaves no cycle behind."""
_MOST_DESCRIPTORS: Final = 1 << 20
_MAX_FLOWS: Final = "max flows"
_TOO_MANY: Final = "too many connections"


class Source(Protocol):
    """What gives intercepted connections, one by one: a Listener is one."""

    async def accept(self) -> IncomingConnection:
        """The next connection. Raises trio.ClosedResourceError once it is closed."""


class FlowSource(Protocol):
    """Where a session's connections come from, and where they go on to."""

    @property
    def listeners(self) -> Sequence[Source]:
        """What intercepted connections are accepted from."""

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        """The connection to its server. Raises OSError."""

    def source(self, connection: IncomingConnection, stream: TcpStream) -> Address:
        """Who its server sees, of that connection."""

    def name_of(self, destination: Address) -> str | None:
        """What clients call a destination, where that is known."""

    def start_event(self, authority: Authority | None) -> SessionStart:
        """What `session.start` says of it."""

    async def watch(self, session: Session) -> None:
        """Do whatever it does besides, and stop the session when it is lost. Cancelled at the
        end."""

    async def close(self) -> Sequence[IncomingConnection]:
        """Let no new connection come; open ones go on. Returns those that had come already, and
        that nobody has accepted yet."""


def prepare_process() -> None:
    """What a process that carries many flows does first."""
    _allow_descriptors()
    urgent.listen_for_it()
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_COLLECT)
    gc.freeze()  # modules are here to stay: no collection need look at them again


def _allow_descriptors() -> None:
    """As many descriptors as we may have: a flow takes two, and two pipes while it is busy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_MOST_DESCRIPTORS, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        except (ValueError, OSError):
            continue
        return


class Session:
    """A session that is to run; `stop` may be called at any time."""

    one_client: ClassVar[bool] = False
    """Whether all connections come from one client, whatever their addresses."""

    def __init__(self, config: SessionConfig, taps: Sequence[Tap] = ()) -> None:
        """`taps` see the packets of its connections, where those are to be written."""
        self.config = config
        self.limits = Limits.of_machine()
        self.crowd = Crowd(self.limits, one_client=self.one_client)
        self.flows: dict[int, Flow] = {}
        self.surplus: dict[int, Flow] = {}
        """Those that came when `--max-flows` had been reached."""
        self.accepted = 0
        self.stop_asked = trio.Event()
        self.force_stop = trio.Event()
        self.one_closed = trio.Event()
        self.reason = "done"
        self.failure: MitmError | None = None
        self.outputs = Outputs.of(config, counters=self._counters, stop=self.output_lost, taps=taps)
        self.hub = Hub(self.outputs.sinks)

    async def run(
        self,
        making: AbstractAsyncContextManager[FlowSource],
        interceptor: TlsInterceptor,
        authority: Authority | None,
    ) -> None:
        """Carry flows until asked to stop. Raises MitmError for what ended it early; nothing
        stays then either."""
        hub = self.hub
        async with self._writing(self.outputs.sinks):
            async with making as flow_source:
                services = self._services(flow_source, interceptor)
                hub.publish(flow_source.start_event(authority))
                await self._serve(flow_source, services)
            hub.publish(hub.totals.stop(self.reason, hub.dropped_events))
        self.outputs.close()
        if self.failure:
            raise self.failure

    def stop(self, reason: str, failure: MitmError | None = None) -> None:
        """Ask for the first stage of stopping; asked again, for the second."""
        self.failure = self.failure or failure
        if self.stop_asked.is_set():
            self.force_stop.set()
            return
        self.reason = reason
        self.stop_asked.set()

    @asynccontextmanager
    async def _writing(self, sinks: Sequence[Sink]) -> AsyncIterator[None]:
        """The sinks at work; what they still hold is written before this is left."""
        async with trio.open_nursery() as nursery:
            for sink in sinks:
                await nursery.start(self._write, sink)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    for sink in sinks:
                        await sink.aclose()

    async def _write(self, sink: Sink, *, task_status: trio.TaskStatus[None]) -> None:
        """A sink that fails, ready or not, stops the session, and no flow waits for it."""
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(sink.run)
                finally:
                    task_status.started()
        except* BrokenPipeError:
            self.output_lost("output closed", None)
        except* MitmError as failures:
            (failure,) = failures.exceptions
            assert isinstance(failure, MitmError)
            self.output_lost("output failed", failure)

    def output_lost(self, reason: str, failure: MitmError | None) -> None:
        """Nobody is told of what happens any more: the session ends."""
        self.stop(reason, failure)

    async def _serve(self, flow_source: FlowSource, services: Services) -> None:
        """Carry flows until asked to stop, and then those that are open for `drain_s` more."""
        async with trio.open_nursery() as nursery:
            for listener in flow_source.listeners:
                nursery.start_soon(self._accept, listener)
            nursery.start_soon(self._begin, nursery, services)
            nursery.start_soon(services.tls.forge.prepare, KeyType.EC_P256, KeyType.RSA_2048)
            nursery.start_soon(flow_source.watch, self)
            if self.config.duration_s is not None:
                nursery.start_soon(self._end_after, self.config.duration_s)
            await self.stop_asked.wait()
            if self.outputs.table:
                self.outputs.table.model.stopping = True
            for connection in await flow_source.close():
                self._enter(connection)
            await self.drain()
            for connection in self.crowd.all_waiting():
                connection.refuse(None)
            nursery.cancel_scope.cancel()
        services.relay.pipes.close()

    async def _accept(self, listener: Source) -> None:
        while True:
            self._enter(await listener.accept())

    def _enter(self, connection: IncomingConnection) -> None:
        """Let a connection wait for its turn, where there is room for it."""
        if self.crowd.enter(connection):
            return
        connection.refuse(None)
        self.hub.totals.refused += 1
        if self.hub.totals.refused == 1:
            self.note(f"too many connections, some are refused: there may be {self.limits}")

    def note(self, text: str) -> None:
        """Tell the user, while the session runs."""

    async def _begin(self, nursery: trio.Nursery, services: Services) -> None:
        while True:
            for connection in await self.crowd.next():
                self._take(nursery, connection, services)
            await trio.lowlevel.checkpoint()

    def _take(
        self, nursery: trio.Nursery, connection: IncomingConnection, services: Services
    ) -> None:
        """Carry a connection. One that `--max-flows` does not count is not ours to end either: it
        came before the rules were gone, and is carried unseen."""
        looked_at = self.crowd.look_at(connection)
        if not looked_at:
            services = _unopened(services, _TOO_MANY)
        if self.accepted == self.config.max_flows:
            services = replace(
                _unopened(services, _MAX_FLOWS),
                publish=lambda _event: None,
                wants=lambda _kind: False,
            )
            flow = Flow(0, connection, services)
            self.surplus[id(flow)] = flow
            nursery.start_soon(self._carry, flow, self.surplus, id(flow), looked_at)
            return
        self.accepted += 1
        flow = Flow(self.accepted, connection, services)
        self.flows[flow.number] = flow
        nursery.start_soon(self._carry, flow, self.flows, flow.number, looked_at)
        if self.accepted == self.config.max_flows:
            self._reach(_MAX_FLOWS)

    async def _carry(self, flow: Flow, among: dict[int, Flow], key: int, looked_at: bool) -> None:
        try:
            await flow.run()
        finally:
            del among[key]
            self.crowd.leave(flow.connection, looked_at=looked_at)
            self.one_closed.set()
            self.one_closed = trio.Event()

    async def drain(self) -> None:
        """Wait for the open flows, as long as `drain_s` and nobody is in a hurry.

        The flows that `--max-flows` has counted are what was asked for: they have all the time.
        """
        timeout_s = math.inf if self.reason == _MAX_FLOWS else self.config.drain_s
        await self._wait_closed(self.flows, timeout_s)
        await self._wait_closed(self.surplus, self.config.drain_s)

    async def _wait_closed(self, flows: Mapping[int, Flow], timeout_s: float) -> None:
        """Wait for these, and for those that have not begun."""
        with trio.move_on_after(timeout_s):
            while (flows or self.crowd.has_waiting) and not self.force_stop.is_set():
                await first_of(self.one_closed.wait, self.force_stop.wait)

    async def _end_after(self, duration_s: float) -> None:
        await trio.sleep(duration_s)
        self._reach("duration")

    def _reach(self, limit: str) -> None:
        """Stop for a limit, which is nobody's wish to hurry."""
        if not self.stop_asked.is_set():
            self.stop(limit)

    def _services(self, flow_source: FlowSource, interceptor: TlsInterceptor) -> Services:
        return Services(
            publish=self.hub.publish,
            wants=self.hub.wants,
            connect=self._telling_of_sources(flow_source),
            relay=Relay(PipePool(self.limits.pipes)),
            tls=interceptor,
            hold_s=self.config.detect_timeout_s,
            with_headers=self.config.headers or self.config.har is not None,
            name_of=flow_source.name_of,
        )

    def _telling_of_sources(self, flow_source: FlowSource) -> Connect:
        """How to connect, and who writes packets knows which of them are the server's side."""
        packets = self.outputs.packets
        if packets is None:
            return flow_source.connect

        async def connect_and_tell(connection: IncomingConnection) -> TcpStream:
            stream = await flow_source.connect(connection)
            source = flow_source.source(connection, stream)
            packets.connected(connection.client, source, connection.destination)
            return stream

        return connect_and_tell

    def _counters(self, number: int) -> Counters | None:
        flow = self.flows.get(number)
        return Counters(*flow.wire_bytes) if flow else None


def _unopened(services: Services, reason: str) -> Services:
    """The same, for flows that are relayed unseen, and in which no TLS is opened where the policy
    wants them to be looked at."""
    policy = without_interception(services.tls.policy, reason)
    return replace(services, unseen=reason, tls=replace(services.tls, policy=policy))
