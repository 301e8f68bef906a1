"""A session of `intercept`: sinks, then rules, then flows; and all of it away again, in that order.

Stopping has two stages. The first (Ctrl-C, SIGTERM, SIGHUP, the duration, the reader of our output
gone) lets go of new connections at once and of open ones after `--drain`; the second (Ctrl-C again)
at once. Whatever the way, the rules are gone before `session.stop` is said.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from mitml4 import __version__
from mitml4.address import Address
from mitml4.errors import ExitCode, MachineError, MitmError
from mitml4.events import CertificateAuthority as Authority
from mitml4.events import SessionStart
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsOpener
from mitml4.net import egress
from mitml4.net.listener import Listener
from mitml4.net.redirect import Interception, intercepting, plan
from mitml4.net.stream import TcpStream
from mitml4.session.config import SessionConfig
from mitml4.session.flow import Flow, Services
from mitml4.session.hub import Hub
from mitml4.session.opener import tls_opener
from mitml4.session.outputs import Outputs
from mitml4.session.summary import summary
from mitml4.sinks.sink import Counters, Sink
from mitml4.sinks.table import Table
from mitml4.tls.keys import KeyType

__all__ = ["intercept"]

_MOST_DESCRIPTORS: Final = 1 << 20
_QUIC_EVERY_S: Final = 2.0

Say = Callable[[str], None]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


async def intercept(config: SessionConfig, say: Say = _say) -> ExitCode:
    """Run a session to its end. Raises MitmError for what ends it early; nothing stays either."""
    if config.dry_run:
        print("\n".join(plan(config.scope)))
        return ExitCode.DONE
    _allow_descriptors()
    gc.freeze()  # modules are here to stay: no collection need look at them again
    return await _Session(config, say).run()


def _allow_descriptors() -> None:
    """As many descriptors as we may have: a flow takes two, and two pipes while it is busy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_MOST_DESCRIPTORS, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        except (ValueError, OSError):
            continue
        return


class _Session:
    def __init__(self, config: SessionConfig, say: Say) -> None:
        self.config = config
        self.say = say
        self.flows: dict[int, Flow] = {}
        self.accepted = 0
        self.stop_asked = trio.Event()
        self.hurry_asked = trio.Event()
        self.all_closed = trio.Event()
        self.reason = "done"
        self.failure: MitmError | None = None
        self.quic_blocked = 0

    async def run(self) -> ExitCode:
        config, started = self.config, trio.current_time()
        outputs = Outputs.of(config, counters=self._counters, stop=self.stop)
        opener, authority = tls_opener(config, outputs.keylog, self.say)
        hub = Hub(outputs.sinks)
        async with _signals(self), self._writing(outputs.sinks):
            async with intercepting(config.scope) as interception:
                for note in interception.notes:
                    self.say(f"note: {note}")
                if outputs.table:
                    outputs.table.model.notes = interception.notes
                services = self._services(interception, hub, opener)
                hub.publish(self._start_event(interception, authority))
                await self._serve(interception, services, outputs.table)
            hub.publish(hub.totals.stop(self.reason, hub.dropped_events))
        outputs.close()
        if self.failure:
            raise self.failure
        took = trio.current_time() - started
        self.say(summary(hub.totals, took, self.quic_blocked, outputs.files, hub.dropped_events))
        return ExitCode.DONE

    def stop(self, reason: str, failure: MitmError | None = None) -> None:
        """Ask for the first stage of stopping; asked again, for the second."""
        if self.stop_asked.is_set():
            self.hurry_asked.set()
            return
        self.reason = reason
        self.failure = failure
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
        """A sink that fails stops the session, and no flow waits for it."""
        try:
            await sink.run(task_status=task_status)
        except BrokenPipeError:
            self.stop("output closed")
        except MitmError as error:
            self.stop("output failed", error)

    async def _serve(
        self, interception: Interception, services: Services, table: Table | None
    ) -> None:
        """Carry flows until asked to stop, and then those that are open for `drain_s` more."""
        async with trio.open_nursery() as nursery:
            for listener in interception.listeners:
                nursery.start_soon(self._accept, nursery, listener, services)
            nursery.start_soon(services.tls.forge.prepare, KeyType.EC_P256, KeyType.RSA_2048)
            nursery.start_soon(self._watch_guard, interception)
            nursery.start_soon(self._watch_quic, interception, table)
            if self.config.duration_s is not None:
                nursery.start_soon(self._end_after, self.config.duration_s)
            await self.stop_asked.wait()
            if table:
                table.model.stopping = True
            await interception.close_intake()
            await self._drain()
            nursery.cancel_scope.cancel()
        services.relay.pipes.close()

    async def _accept(self, nursery: trio.Nursery, listener: Listener, services: Services) -> None:
        while True:
            accepted = await listener.accept()
            self.accepted += 1
            flow = Flow(self.accepted, accepted, services)
            self.flows[flow.number] = flow
            nursery.start_soon(self._carry, flow)
            if self.accepted == self.config.max_flows:
                self.stop("max flows")

    async def _carry(self, flow: Flow) -> None:
        try:
            await flow.run()
        finally:
            del self.flows[flow.number]
            if not self.flows:
                self.all_closed.set()

    async def _drain(self) -> None:
        """Wait for the open flows, as long as `drain_s` and nobody is in a hurry."""
        self.all_closed = trio.Event()
        if not self.flows:
            return
        with trio.move_on_after(self.config.drain_s):
            async with trio.open_nursery() as nursery:

                async def first(event: trio.Event) -> None:
                    await event.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(first, self.all_closed)
                nursery.start_soon(first, self.hurry_asked)

    async def _watch_guard(self, interception: Interception) -> None:
        reason = await interception.wait_lost()
        self.stop("rules lost", MachineError(reason, hint="start the session again"))

    async def _watch_quic(self, interception: Interception, table: Table | None) -> None:
        while self.config.scope.quic == "block":
            self.quic_blocked = await interception.quic_blocked()
            if table:
                table.model.quic_blocked = self.quic_blocked
            await trio.sleep(_QUIC_EVERY_S)

    async def _end_after(self, duration_s: float) -> None:
        await trio.sleep(duration_s)
        self.stop("duration")

    def _services(self, interception: Interception, hub: Hub, opener: TlsOpener) -> Services:
        mark, spoof = interception.egress_mark, self.config.scope.spoof_source

        async def connect(destination: Address, client: Address) -> TcpStream:
            source = client if spoof else None
            return TcpStream(
                await egress.connect(destination, mark=mark, source=source, transparent=spoof)
            )

        return Services(
            publish=hub.publish,
            connect=connect,
            relay=Relay(),
            tls=opener,
            hold_s=self.config.detect_timeout_s,
            with_headers=self.config.headers,
        )

    def _counters(self, number: int) -> Counters | None:
        flow = self.flows.get(number)
        return Counters(*flow.ingress.wire_bytes) if flow else None

    def _start_event(self, interception: Interception, authority: Authority | None) -> SessionStart:
        return SessionStart(
            version=__version__,
            mode="intercept",
            interfaces=self.config.scope.interfaces,
            listeners=tuple(listener.address for listener in interception.listeners),
            ca=authority,
            table=interception.table,
            pid=os.getpid(),
        )


@asynccontextmanager
async def _signals(session: _Session) -> AsyncIterator[None]:
    """SIGINT, SIGTERM and SIGHUP ask the session to stop; each further one to hurry."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with trio.open_signal_receiver(*numbers) as received:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for number in received:
                    session.stop(signal.Signals(number).name)

            nursery.start_soon(listen)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
