"""The workers of a session: which of them carries a flow, and what they ask for.

The session accepts connections, gives flows their numbers, counts them against the limits, and
publishes their events. It carries flows itself, as the workers do: a worker has the sockets, layers
and TLS of its flows. Workers are started once there is enough for them to do.

    session → worker   begin, answer, reset, measure, deliver, ping, stop; what others have learned
    worker → session   pid, pong; ask (accept, connect, dial, leaf, lookup, hook), cancel, refuse;
                       event, exchange (an event with which one of HTTP begins or ends), end; what
                       it has learned

One stream in each direction keeps the order of a flow's events, and what a flow has shown before
its client could connect again is known to all workers before that connection begins.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import trio

from mitml4.errors import MitmError
from mitml4.hooks.editor import HookError
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.dial import EXHAUSTED
from mitml4.net.listener import IncomingConnection
from mitml4.net.tcp import TcpStream
from mitml4.process import RunningProcess
from mitml4.protocols.expected import Expectations
from mitml4.session.flows.elsewhere import Elsewhere
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.flows import Carried
from mitml4.session.flows.services import Services
from mitml4.session.sources.source import FlowSource
from mitml4.session.workers.balance import Balance
from mitml4.session.workers.channel import Channel, Message, channel_pair
from mitml4.session.workers.forwarding import SentLine
from mitml4.session.workers.packing import CLOSES, LAYERS
from mitml4.session.workers.remote import RemoteFlow, RemoteWorker
from mitml4.session.workers.scripts import asked
from mitml4.session.workers.sharing import Learned, SharedTickets, pack_leaf
from mitml4.session.workers.starter import Starter
from mitml4.session.workers.worker import ParentSession, Worker
from mitml4.sinks.jsonl import Line
from mitml4.sinks.updates import Published
from mitml4.tasks import first_of

__all__ = ["Workers"]

_STOP_S: Final = 3.0
"""How long workers may take to end their flows."""
_BEAT_S: Final = 1.0
"""How often it is looked whether a worker says anything."""
_AGAIN_S: Final = 0.2
"""A worker that has ended is replaced at once, but the same one not more often than this."""

log = logging.getLogger(__name__)


class Workers:
    """The session's side of all channels."""

    def __init__(
        self,
        starter: Starter,
        session: ParentSession,
        sources: Sequence[FlowSource],
        interceptor: TlsInterceptor,
        balance: Balance,
        fail_output: Callable[[MitmError], None],
    ) -> None:
        """`fail_output` is called with the error of an output that a worker cannot write."""
        self._starter = starter
        self._session = session
        self._hub = session.hub
        self._balance = balance
        self._sources = sources
        self._interceptor = interceptor
        self._fail_output = fail_output
        self._scripts = session.scripts
        self._learned = Learned(interceptor)
        self._learned.send_changes(lambda change: self.send(*change))
        interceptor.tickets = self._tickets = SharedTickets(trio.current_time)
        self._remembered: dict[object, Message] = {}
        """What was sent to all workers, as far as a new one has to know it."""
        self._expectations: dict[int, Expectations] = {}
        """Of each source."""
        self._surplus = 0
        self._alone_up_to = session.config.alone_up_to
        self._needed = trio.Event()
        self._is_stopping = False
        self._hurried = trio.Event()
        self.workers = [RemoteWorker() for _ in range(session.config.workers - 1)]
        if not self._alone_up_to:
            self._needed.set()

    @classmethod
    def of(
        cls,
        session: ParentSession,
        sources: Sequence[FlowSource],
        interceptor: TlsInterceptor,
        balance: Balance,
        fail_output: Callable[[MitmError], None],
        keep: Iterable[int],
    ) -> Workers:
        """Those of a session, which have these descriptors and those of its rules. Raises
        MachineError."""
        worker = Worker(session, sources, interceptor)
        work = partial(worker.run, clock=trio.lowlevel.current_clock())
        rules = session.rules
        starter = Starter(work, (*(rules.folders if rules else ()), *keep))
        workers = cls(starter, session, sources, interceptor, balance, fail_output)
        if rules:
            rules.on_change = lambda index, content: workers.remember(
                ("rules", index), "rules", index, content
            )
        return workers

    @property
    def parent(self) -> int:
        """The process that ends once they have ended."""
        return self._starter.pid

    def _begun(self) -> Channel | None:
        """The channel to a new worker; None: it cannot be started. Raises OSError."""
        channel, theirs = channel_pair()
        is_started = False
        try:
            is_started = self._starter.start(theirs)
        finally:
            if not is_started:
                channel.close()
        return channel if is_started else None

    async def _begun_once_possible(self) -> Channel | None:
        """The same, once there are descriptors for it."""
        while not self._is_stopping:
            try:
                return self._begun()
            except OSError as error:
                if error.errno not in {*EXHAUSTED, errno.ETOOMANYREFS}:
                    raise
                log.info("no worker can be started", exc_info=True)
            await trio.sleep(_AGAIN_S)
        return None

    async def run(self) -> None:
        """Start workers once they are needed, and keep them. Until cancelled."""
        await self._needed.wait()
        self._share = self._session.memory.divide(len(self.workers) + 1)
        self._tickets.send = self._broadcast
        async with trio.open_nursery() as nursery:
            for each in self.workers:
                nursery.start_soon(self._keep, each)
            while True:
                await trio.sleep(_BEAT_S)
                for each in self.workers:
                    each.beat()

    async def finish(self, *, is_forced: bool = False) -> None:
        """End all flows, with their events, and the workers. Those that take too long are killed;
        so are those that do not answer, if `is_forced`."""
        self._is_stopping = True
        for each in self.workers:
            if each.channel:
                each.channel.send("stop")
        if not self._needed.is_set():
            return
        self._hurried = trio.Event()
        if is_forced:
            self._give_up(each for each in self.workers if each.is_silent)
        with trio.move_on_after(_STOP_S):
            await first_of(self._wait_ended, self._hurried.wait)
        self._give_up(self.workers)
        await self._wait_ended()

    def hurry(self) -> None:
        """Wait no longer for workers to end their flows, if they are waited for."""
        self._hurried.set()

    async def _wait_ended(self) -> None:
        for each in self.workers:
            await each.ended.wait()

    def _give_up(self, workers: Iterable[RemoteWorker]) -> None:
        for each in workers:
            if not each.ended.is_set():
                each.give_up()

    def signal(self, number: int) -> None:
        """Send a signal to all of them."""
        for each in self.workers:
            if each.channel and each.pid:
                with suppress(OSError):
                    os.kill(each.pid, number)

    def close(self) -> None:
        for each in self.workers:
            each.cut_flows()
        self._starter.close()

    def begin(
        self,
        number: int,
        connection: IncomingConnection,
        services: Services,
        process: RunningProcess | None = None,
    ) -> Carried:
        """See `flows.Begin`. Where there is no worker, the flow is carried here."""
        if self._balance.here.open > self._alone_up_to:
            self._needed.set()
        for each in self.workers:
            self._catch_up(each)
        able = [each for each in self.workers if each.is_able]
        self._share_announcements(services)
        carrier = self._balance.choose(number, able)
        if not isinstance(carrier, RemoteWorker):
            return Flow(number, connection, services, process)
        self._surplus -= not number
        return RemoteFlow(number or self._surplus, carrier, connection, services, process)

    def _share_announcements(self, services: Services) -> None:
        """Workers look up what clients ask for in tunnels."""
        if services.source not in self._expectations:
            self._expectations[services.source] = services.expectations
            services.expectations.on_add = partial(self.send, "announce", services.source)

    def send(self, *message: Any) -> None:
        """Send all workers what the session has learned."""
        self._broadcast(message)

    def remember(self, key: object, *message: Any) -> None:
        """The same, for what new workers have to know; what had this key before is forgotten."""
        self._remembered.pop(key, None)
        self._remembered[key] = message
        self.send(*message)

    def _broadcast(self, message: Message, sender: RemoteWorker | None = None) -> None:
        for each in self.workers:
            if each is not sender and each.channel:
                each.channel.gather(message)  # what begins the next flow is sent behind it

    # The life of a worker

    async def _keep(self, worker: RemoteWorker) -> None:
        """Start a worker, and each that replaces it, and serve it."""
        while channel := await self._begun_once_possible():
            began = trio.current_time()
            worker.begin(channel)
            self._send_state(channel)
            try:
                async with trio.open_nursery() as nursery:
                    worker.nursery = nursery
                    nursery.start_soon(channel.run)
                    with worker.serving:
                        await self._serve(worker, channel)
                    nursery.cancel_scope.cancel()
            finally:
                worker.channel, worker.pid = None, 0
                channel.close()
            worker.lose_flows()
            if not self._is_stopping:
                log.info("a worker has ended")
                await trio.sleep_until(began + _AGAIN_S)
        worker.ended.set()

    def _send_state(self, channel: Channel) -> None:
        """Send a new worker what the others know."""
        channel.send("share", self._share)
        channel.send("learned", self._learned.state)
        for source, expectations in self._expectations.items():
            channel.send("announced", source, expectations.open)
        for each in (*self._remembered.values(), *self._tickets.all()):
            channel.gather(each)

    async def _serve(self, worker: RemoteWorker, channel: Channel) -> None:
        while messages := await channel.receive():
            worker.silence = 0
            for message, _ in messages:
                self._take(worker, message)

    def _catch_up(self, worker: RemoteWorker) -> None:
        """Take what a worker has said already: the next flow may depend on it."""
        if worker.channel and not worker.is_given_up:
            try:
                found = worker.channel.receive_nowait()
            except EOFError:  # the task that serves it finds this too, and replaces it
                worker.has_ended = True
                return
            if found:
                worker.silence = 0
            for message, _ in found:
                self._take(worker, message)

    def _take(self, worker: RemoteWorker, message: Message) -> None:
        match message:
            case ("event", event):
                self._publish(event)
            case ("layer", values):
                layer = LAYERS.made(values)
                worker.note_layer(layer)
                self._hub.publish(layer)
            case ("close", values):
                close = CLOSES.made(values)
                self._hub.publish(close)
                worker.note_end(close.flow, is_closed=True)
            case ("exchange", flow, place, is_begun, event):
                worker.note_exchange(flow, place, is_begun=is_begun and event is not None)
                if event is None:
                    self._hub.lost_events += 1
                else:
                    self._publish(event)
            case ("ticket", ours, packed):
                self._tickets.learn(ours, packed)
                self._broadcast(message, worker)
            case ("accept", key):
                if flow := worker.flows.get(key):
                    flow.accept()
            case ("ask", number, what, *arguments):
                assert worker.nursery
                asked_for = worker.asked[number] = trio.CancelScope()  # a cancel may come at once
                worker.nursery.start_soon(self._answer, worker, asked_for, number, what, arguments)
            case ("cancel", number):
                if scope := worker.asked.get(number):
                    scope.cancel()
            case ("refuse", key, reason):
                if flow := worker.flows.get(key):
                    flow.refuse(reason)
            case ("end", key):
                worker.note_end(key, is_closed=False)
            case ("delivered", key):
                if flow := worker.flows.get(key):
                    flow.has_delivered = True
            case ("pins" | "engines" as what, *change):
                self._learned.change(what, *change)
                self._broadcast(message, worker)
            case ("announce", source, announcement, client, server):
                now_s = trio.current_time()
                self._expectations[source].copy(announcement, client, server, now_s)
                self._broadcast(message, worker)
            case ("failed", message, hint):
                self._fail_output(MitmError(message, hint=hint))
            case ("failed hook", script, hook, what, reason):
                self._scripts[script].say_once(hook, HookError(what, reason))
            case ("pong",):
                pass
            case ("pid", pid):
                worker.pid = pid
            case ("lost",):
                self._hub.lost_events += 1
            case _:
                raise ValueError(message[0])

    def _publish(self, event: Published | SentLine) -> None:
        self._hub.publish(Line(*event) if isinstance(event, tuple) else event)

    # Answers

    async def _answer(
        self,
        worker: RemoteWorker,
        scope: trio.CancelScope,
        number: int,
        what: str,
        arguments: Sequence[Any],
    ) -> None:
        error: Exception | None = None
        value: Any = None
        stream: TcpStream | None = None
        with scope:
            try:
                match what, arguments:
                    case "connect", (key, to):
                        stream = await self._connect(worker.flow(key), to)
                    case "dial", (source, address):
                        stream = await self._sources[source].dial(address)
                    case "leaf", (original, wanted):
                        value = pack_leaf(await self._interceptor.forge.leaf(original, **wanted))
                    case "hook", (script, head, body):
                        value = await asked(self._scripts[script], head, body)
                    case "lookup", (given, options):
                        value = await trio.socket.getaddrinfo(*given, **options)
                    case _:
                        raise ValueError(what)
            except (OSError, MitmError) as failed:
                error = failed.with_traceback(None)
            except Exception as failed:  # a fault of ours ends this flow and no other
                log.exception("%s for a worker", what)
                error = RuntimeError(f"{type(failed).__name__}: {failed}")
        del worker.asked[number]
        descriptor = stream.socket.detach() if stream else None
        if worker.channel:
            worker.channel.send("answer", number, error, value, descriptor=descriptor)

    async def _connect(self, flow: RemoteFlow, to: Any) -> TcpStream:
        connection = flow.connection
        if to is not None:
            connection = Elsewhere(connection, to)
        return await self._sources[flow.services.source].connect(connection)
