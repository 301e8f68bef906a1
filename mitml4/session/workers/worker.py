"""A worker: a process that carries flows which a session hands to it.

It was forked with everything that a flow needs but the session's descriptors (starter.py). What it
has to ask the session for is what only one process can do: to accept a connection that is held at
its SYN, to connect from where a source's connections come from, and to make a leaf.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass, replace
from mitml4.hooks.editor import HookEditor, Info
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.dial import abort
from mitml4.net.listener import Ends, IncomingConnection
from mitml4.net.tcp import TcpStream
from mitml4.process import RunningProcess
from mitml4.protocols.expected import Expectations, Transport
from mitml4.session.config import SessionConfig
from mitml4.session.destinations.policy import LivePolicy
from mitml4.session.editors.rules import RuleFiles
from mitml4.session.flows.elsewhere import Elsewhere
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.flows import unheard, unopened
from mitml4.session.flows.services import Services
from mitml4.session.memory import SharedMemory
from mitml4.session.reporting.hub import Hub
from mitml4.session.saying import Complain
from mitml4.session.sources.source import FlowSource
from mitml4.session.workers.channel import Channel, Message
from mitml4.session.workers.forwarding import ForwardingHub
from mitml4.session.workers.packing import Packing
from mitml4.session.workers.scripts import AskedScript
from mitml4.session.workers.sharing import AskedForge, Learned, SharedTickets

__all__ = ["BEGINNINGS", "Begun", "ParentSession", "Worker"]

_DELIVERY_INTERVAL_S: Final = 0.02

log = logging.getLogger(__name__)


class ParentSession(Protocol):
    """The session that a worker was forked from, as far as it uses it."""

    hub: Hub
    policy: LivePolicy
    rules: RuleFiles | None
    config: SessionConfig
    scripts: Sequence[HookEditor]
    memory: SharedMemory

    def services_of(self, source: FlowSource, number: int, interceptor: TlsInterceptor) -> Services:
        """The services of the flows of a source, of which this is the number."""

    def become_worker(self, complain: Complain) -> None:
        """Give `complain` the errors of outputs that fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A flow that a worker begins."""

    key: int
    """Its number, or a negative one for a flow that publishes nothing."""
    source: int
    client: Address
    destination: Address
    origin: Address
    """The source address that the server would see without us."""
    interface: str
    local_ends: Ends | None
    process: RunningProcess | None
    names: tuple[str, ...]
    unseen: str | None
    expected: str | None
    """The protocol that another flow has announced for this one."""


BEGINNINGS: Final = Packing(Begun)


class Worker:
    """The worker's side of its channel."""

    def __init__(
        self, session: ParentSession, sources: Sequence[FlowSource], interceptor: TlsInterceptor
    ) -> None:
        self._session = session
        self._sources = sources
        self._interceptor = interceptor
        self._learned = Learned(interceptor)
        self._flows: dict[int, Flow] = {}
        self._accepting: dict[int, _Question] = {}
        """By the keys of flows whose clients are let in."""
        self._asked: dict[int, _Question] = {}
        self._count = 0
        self._unopened: dict[tuple[int, str], Services] = {}

    def run(self, sock: socket.socket, clock: trio.abc.Clock) -> None:
        """Until the session ends it, or has ended. Times are those of the session's clock."""
        trio.run(self._run, sock, clock=clock)

    async def _run(self, sock: socket.socket) -> None:
        self._channel = channel = Channel(sock)
        channel.send("pid", os.getpid())
        self._kept_hub = self._session.hub  # its sinks hold descriptors of the session
        self._session.hub = ForwardingHub(
            self._session.hub, channel, headers=self._session.config.shown.headers
        )
        interceptor = self._interceptor
        self._kept_forge = interceptor.forge
        interceptor.forge = AskedForge(interceptor.forge, self._ask)
        interceptor.tickets = self._tickets = SharedTickets(trio.current_time, channel.gather)
        interceptor.passthrough_cache.on_pinned = None  # which the session tells
        self._learned.send_changes(self.send)
        if not all(each.dials_anywhere for each in self._sources):
            trio.socket.set_custom_hostname_resolver(_Resolver(self._ask))
        self._kept_scripts = self._session.scripts
        self._session.scripts = [
            AskedScript(script, number, self._ask, channel.send)
            for number, script in enumerate(self._session.scripts)
        ]
        self._session.become_worker(lambda error: channel.send("failed", error.message, error.hint))
        self._outlets = [_Outlet(self, each, index) for index, each in enumerate(self._sources)]
        self._services = [
            replace(
                self._session.services_of(each, index, interceptor),
                expectations=each.expecting,
            )
            for index, each in enumerate(self._outlets)
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            async with trio.open_nursery() as self._nursery:
                await self._receive()
                self._nursery.cancel_scope.cancel()
            await channel.finish()
            nursery.cancel_scope.cancel()

    async def _receive(self) -> None:
        """Until the session has ended, or says so."""
        while messages := await self._channel.receive():
            for message, descriptor in messages:
                if message[0] == "stop":
                    return
                self._do(message, descriptor)

    def _do(self, message: Message, descriptor: int | None) -> None:
        match message:
            case ("begin", values):
                self._begin(BEGINNINGS.made(values), descriptor)
            case ("accepted", key):
                self._answer(self._accepting.get(key), None, None, descriptor)
            case ("gone", key):
                gone = ConnectionResetError(errno.ECONNRESET, "the client has gone")
                self._answer(self._accepting.get(key), gone, None, None)
            case ("answer", number, error, value):
                self._answer(self._asked.get(number), error, value, descriptor)
            case ("reset", key):
                if flow := self._flows.get(key):
                    flow.reset()
            case ("measure", key):
                if flow := self._flows.get(key):
                    flow.measure()
            case ("deliver", key):
                self._nursery.start_soon(self._deliver, key)
            case ("ping",):
                self._channel.send("pong")
            case ("share", share):
                self._session.memory.take(share)
            case ("announce", source, announcement, client, server):
                expecting = self._outlets[source].expecting
                expecting.copy(announcement, client, server, trio.current_time())
            case ("announced", source, there):
                self._outlets[source].expecting.open = there
            case ("ticket", ours, packed):
                self._tickets.learn(ours, packed)
            case ("pins" | "engines" as what, *change):
                self._learned.change(what, *change)
            case ("learned", state):
                self._learned.state = state
            case ("toggle", option, host):
                self._session.policy.toggle(option, host)
            case ("script", number, head):
                self._session.scripts[number].info = Info.of(head)
            case ("rules", index, content) if self._session.rules:
                self._session.rules.use(index, content)
            case _:
                raise ValueError(message[0])

    # Flows

    def _begin(self, begun: Begun, descriptor: int | None) -> None:
        services = self._services[begun.source]
        if begun.unseen is not None:
            key = begun.source, begun.unseen
            if key not in self._unopened:
                self._unopened[key] = unopened(services, begun.unseen)
            services = self._unopened[key]
        if begun.key < 0:
            services = unheard(services)
        connection = _Connection(self, begun, descriptor)
        outlet = self._outlets[begun.source]
        outlet.names, outlet.expecting.expected = begun.names, begun.expected
        flow = Flow(max(begun.key, 0), connection, services, begun.process)
        self._flows[begun.key] = flow
        flow.start(self._nursery, partial(self._end, begun.key))

    def _end(self, key: int) -> None:
        del self._flows[key]
        if key < 0:  # the end of others is told by their flow.close
            self._channel.gather(("end", key))

    async def _deliver(self, key: int) -> None:
        """Report once the server of a flow has acknowledged what the client has sent."""
        while (flow := self._flows.get(key)) and not flow.is_delivered:  # noqa: ASYNC110
            await trio.sleep(_DELIVERY_INTERVAL_S)
        self._channel.gather(("delivered", key))

    def send(self, message: Message) -> None:
        """Send the session what others may have to know soon."""
        self._channel.send(*message)

    # Questions

    async def _ask(self, what: str, *arguments: Any) -> Any:
        """The answer of the session. Raises what that has raised."""
        return (await self._question(what, *arguments)).value

    async def ask_socket(self, what: str, *arguments: Any) -> socket.socket:
        """The same, for a socket. Raises OSError."""
        return (await self._question(what, *arguments)).take_socket()

    async def _question(self, what: str, *arguments: Any) -> _Question:
        self._count += 1
        number = self._count
        question = self._asked[number] = _Question()
        self._channel.send("ask", number, what, *arguments)
        try:
            await question.wait_answer()
        except trio.Cancelled:
            self._channel.send("cancel", number)
            raise
        finally:
            del self._asked[number]
        return question

    async def accept(self, key: int) -> socket.socket:
        """The connection of a flow's client, which waits to be let in. Raises OSError."""
        question = self._accepting[key] = _Question()
        self._channel.send("accept", key)
        try:
            await question.wait_answer()
        finally:
            del self._accepting[key]
        return question.take_socket()

    def _answer(
        self,
        question: _Question | None,
        error: Exception | None,
        value: Any,
        descriptor: int | None,
    ) -> None:
        if question:
            question.answer(error, value, descriptor)
        elif descriptor is not None:  # nobody waits any more
            abort(socket.socket(fileno=descriptor))

    def refuse(self, key: int, reason: OSError | None) -> None:
        self._channel.send("refuse", key, reason)


class _Question:
    """What the session was asked."""

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        self._is_waiting = True
        self._error: Exception | None = None
        self.value: Any = None
        self._descriptor: int | None = None

    async def wait_answer(self) -> None:
        """Raises what the session has raised."""
        await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
        if self._error:
            raise self._error

    def _stop_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._is_waiting = False
        return trio.lowlevel.Abort.SUCCEEDED

    def answer(self, error: Exception | None, value: Any, descriptor: int | None) -> None:
        """Go on with it, unless who asked has been cancelled."""
        if self._is_waiting:
            self._error, self.value, self._descriptor = error, value, descriptor
            self._is_waiting = False
            trio.lowlevel.reschedule(self._task)
        elif descriptor is not None:
            abort(socket.socket(fileno=descriptor))

    def take_socket(self) -> socket.socket:
        """The socket that came with the answer. Raises OSError if this process may have no more."""
        if self._descriptor is None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return socket.socket(fileno=self._descriptor)


class _Connection:
    """An incoming connection that the session has."""

    def __init__(self, worker: Worker, begun: Begun, descriptor: int | None) -> None:
        """`descriptor`: of its socket, if it was accepted already."""
        self._worker = worker
        self._begun = begun
        self._socket = None if descriptor is None else socket.socket(fileno=descriptor)
        self.key = begun.key
        self.client = begun.client
        self.destination = self.asked = begun.destination
        self.source = begun.origin
        self.interface = begun.interface
        self.local_ends = begun.local_ends

    async def accept(self) -> TcpStream:
        sock, self._socket = self._socket, None
        return TcpStream(sock or await self._worker.accept(self.key))

    def refuse(self, reason: OSError | None) -> None:
        sock, self._socket = self._socket, None
        if sock:
            abort(sock)
        else:
            self._worker.refuse(self.key, reason)


class _Outlet:
    """A source, from where connections to servers are made."""

    def __init__(self, worker: Worker, source: FlowSource, number: int) -> None:
        self._worker = worker
        self._source = source
        self._number = number
        self.names: tuple[str, ...] = ()
        """Of the destination of the flow that begins."""
        self.expecting = _Expecting(number, worker.send)
        self.is_one_client = source.is_one_client
        self.container = source.container
        self.owners = None
        self.proxy = source.proxy
        self.dials_anywhere = source.dials_anywhere
        self.sees_lookups = source.sees_lookups
        self.start = source.start
        self.is_here = source.is_here
        self.source_address = source.source_address

    def names_of(self, _destination: Address) -> tuple[str, ...]:
        return self.names

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        if self.dials_anywhere:
            return await self._source.connect(connection)
        to = None
        if isinstance(connection, Elsewhere):
            connection, to = connection.original, connection.destination
        assert isinstance(connection, _Connection)
        return TcpStream(await self._worker.ask_socket("connect", connection.key, to))

    async def dial(self, address: Address) -> TcpStream:
        if self.dials_anywhere:
            return await self._source.dial(address)
        return TcpStream(await self._worker.ask_socket("dial", self._number, address))

    async def accept(self) -> IncomingConnection:
        raise trio.ClosedResourceError  # the session accepts

    async def outlive(self, _pid: int) -> None:
        """The session does."""

    async def watch(self, _session: object) -> None:
        """The session does."""

    async def close(self) -> tuple[()]:
        return ()


class _Resolver(trio.abc.HostnameResolver):
    """Names as the session resolves them."""

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self._ask = ask

    async def getaddrinfo(self, *arguments: Any, **options: Any) -> Any:
        return await self._ask("lookup", arguments, options)

    async def getnameinfo(self, *arguments: Any) -> Any:
        raise OSError(errno.ENOSYS, "names of addresses are not looked up")


class _Expecting(Expectations):
    """Connections that were announced: the session knows those of all processes, and looks up a
    flow before it begins. What a client asks for in a tunnel is looked up here, so each worker has
    those of the others too."""

    def __init__(self, source: int, send: Callable[[Message], None]) -> None:
        super().__init__()
        self.on_add = lambda *added: send(("announce", source, *added))
        self.expected: str | None = None
        """Of the flow that begins."""

    def take(self, transport: Transport, host: str, port: int, now_s: float) -> str | None:
        return self.expected

    def take_in_tunnel(self, host: str, port: int, now_s: float) -> str | None:
        return super().take("tcp", host, port, now_s)
