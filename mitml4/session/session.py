"""The course of a session: open the sinks, then the sources, run the flows; then close in reverse.

Stopping has two stages. The first closes the sources at once, and gives open flows `--drain` to
end. The second ends them at once. The sources are always closed before `session.stop` is published.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, closing
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import trio

from mitml4 import __version__
from mitml4.edit.editor import Editor
from mitml4.edit.editors import Editors
from mitml4.errors import MitmError, UsageError
from mitml4.events import CertificateAuthority as Authority
from mitml4.events import QuicRefused, SessionStart
from mitml4.layers.ca_page import Pages
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.listener import IncomingConnection
from mitml4.net.tap import Tap
from mitml4.process import RunningProcess
from mitml4.protocols.payload import Shown
from mitml4.protocols.policy import Target
from mitml4.session.config import SessionConfig
from mitml4.session.destinations.policy import LivePolicy
from mitml4.session.flows.crowd import Limits, QueuedConnection
from mitml4.session.flows.flows import MAX_FLOWS, Flows
from mitml4.session.flows.proof import Connect, Prover
from mitml4.session.flows.reconnecting import Reconnecting
from mitml4.session.flows.services import EditingServices, Services
from mitml4.session.memory import SharedMemory
from mitml4.session.reporting.hub import Hub
from mitml4.session.reporting.outputs import Outputs
from mitml4.session.saying import Complain, Say
from mitml4.session.servers import Servers
from mitml4.session.sources.source import FlowSource
from mitml4.session.writing import open_outputs, writing
from mitml4.sinks.commands import Command, Measure, PassThrough, Refuse, Reset, Stop
from mitml4.sinks.notes import Notes
from mitml4.sinks.sink import LiveSink, Sink
from mitml4.sinks.updates import (
    ClientAsked,
    Note,
    OutputFailed,
    Stopping,
    TlsSecret,
    Update,
)
from mitml4.tls.forge import Forge
from mitml4.tls.keys import KeyType
from mitml4.tls.pinning import PassthroughCache

if TYPE_CHECKING:
    from mitml4.hooks.editor import HookEditor
    from mitml4.session.destinations.tunnels import Tunnels
    from mitml4.session.editors.rules import RuleFiles
    from mitml4.session.editors.scripts import Scripts
    from mitml4.session.workers.balance import Balance
    from mitml4.session.workers.workers import Workers

__all__ = ["Session"]

_RSA_AFTER_S: Final = 1.0
"""The time from the start to the generation of an RSA key, whose CPU time would slow the start."""

log = logging.getLogger(__name__)
_TOGGLED: Final = {
    "block": ("", "blocked", "allowed"),
    "passthrough": ("TLS to ", "passed through", "intercepted"),
}
"""What is said of a host after its option was toggled: a beginning, on, off."""


class Session:
    """One session. `stop` may be called at any time."""

    mode: ClassVar[Literal["intercept", "run", "proxy"]] = "intercept"
    needs_outputs: ClassVar[bool] = True
    """Whether it ends when no sink takes its events any more."""

    def __init__(
        self,
        config: SessionConfig,
        say: Say,
        complain: Complain,
        taps: Sequence[Tap] = (),
        *,
        open_outputs: Callable[..., Outputs[LiveSink]] = open_outputs,
    ) -> None:
        """Opens the outputs. `say` takes notes to the user, `complain` errors that do not end the
        session; `taps` see the packets of its connections, where those are to be written.

        Raises MitmError for a file that cannot be written, or rules that cannot be used.
        """
        self.config = config
        self.reason = "done"
        self.cut_off: set[str] = set()
        """The names of outputs that could not be written to their end."""
        self._complain = complain
        self._stop_asked = trio.Event()
        self._failure: MitmError | None = None
        self.policy = LivePolicy(config.policy)
        self._limits = Limits.of_machine(config.workers)
        self.rules = self._open_rules() if config.rules else None
        self.memory = SharedMemory(
            edit_limit=config.edit_limit, pipes=self._limits.pipes, shown=config.shown
        )
        self._scripts = self._open_scripts() if config.scripts else None
        self.scripts: Sequence[HookEditor] = self._scripts.scripts if self._scripts else ()
        self._balance = _balance() if config.workers > 1 else None
        self.outputs = open_outputs(
            config, ask=self.handle, keylog_failed=self._lose_key_log, taps=taps
        )
        reconnecting = Reconnecting()
        self.hub = Hub(
            self.outputs.sinks,
            [Notes(say), reconnecting, *[each for each in (self._scripts, self._balance) if each]],
            condition=config.filter,
            unfiltered=self.outputs.unfiltered,
            on_failure=self._break,
        )
        self.flows = Flows(self.hub, self._limits, config.max_flows, self._reach)
        reconnecting.open = self.flows.open
        self._passthrough_cache: PassthroughCache | None = None
        """While it runs."""
        self._ca_page: Pages | None = None
        self._workers: Workers | None = None
        if config.routes:  # before the session may import nothing more
            import_module("mitml4.session.destinations.tunnels")

    def _open_rules(self) -> RuleFiles:
        """Raises MitmError."""
        from mitml4.session.editors.rules import RuleFiles  # most sessions have none

        return RuleFiles.open(self.config.rules, self.config.edit_limit)

    def _open_scripts(self) -> Scripts:
        """Raises MitmError."""
        from mitml4.session.editors.scripts import Scripts  # most sessions have none

        return Scripts.open(
            self.config.scripts,
            timeout_s=self.config.script_timeout_s,
            limit=self.config.edit_limit,
            publish=lambda event: self.hub.publish(event),
        )

    async def run(
        self,
        opening: AbstractAsyncContextManager[Sequence[FlowSource]],
        interceptor: TlsInterceptor,
        authority: Authority | None,
        ca_page: Pages | None = None,
    ) -> None:
        """Run until stopped. `ca_page` is what is answered at `CA_PAGE`. Raises MitmError for what
        ended the session early; everything is closed then, too."""
        self._passthrough_cache = interceptor.passthrough_cache
        self._ca_page = ca_page
        with closing(self.outputs):
            async with writing(self.outputs.sinks, self._lose):
                with ExitStack() as at_end:
                    async with opening as sources:
                        self._workers = await self._start_workers(sources, interceptor)
                        self.hub.publish(self._start_event(sources, authority))
                        at_end.push(self._publish_totals)
                        for note in self.config.routes.notes():
                            self.note(note)
                        await self._serve(sources, interceptor)
        if self._failure:
            raise self._failure

    def _publish_totals(self, error: type[BaseException] | None, *_: object) -> None:
        """The last event, also of a session that has failed in its course or at its end."""
        reason = "failed" if error and not self.is_stopping else self.reason
        self.hub.publish(self.hub.totals.stop(reason, self.hub.dropped_events))

    def stop(self, reason: str, failure: MitmError | None = None) -> None:
        """Begin the first stage of stopping; called again, the second."""
        self._failure = self._failure or failure
        if self.is_stopping:
            self.flows.force_stop.set()
            if self._workers:
                self._workers.hurry()
            return
        self.reason = reason
        self._stop_asked.set()
        self.hub.publish(Stopping())

    @property
    def is_stopping(self) -> bool:
        return self._stop_asked.is_set()

    def handle(self, command: Command) -> str | None:
        """Do what a person asks for by a key. Returns what was done, where it cannot be seen."""
        match command:
            case Stop():
                self.stop("q")
            case Measure():
                for number in command.flows:
                    self.flows.measure(number)
            case Reset():
                was_open = self.flows.reset(command.flow)
                return f"#{command.flow} {'is reset' if was_open else 'has ended'}"
            case Refuse() | PassThrough():
                try:
                    return self._toggle(command)
                except UsageError as error:
                    return error.message
        return None

    def _toggle(self, command: Refuse | PassThrough) -> str:
        """Raises UsageError for what is no host."""
        option: Literal["block", "passthrough"] = (
            "block" if isinstance(command, Refuse) else "passthrough"
        )
        is_on = self.policy.toggle(option, command.host)
        if self._workers:
            key = "toggle", option, command.host
            self._workers.remember((*key, is_on), *key)
        action, reason = self.policy.decide([Target(command.host, 0)])
        if option == "passthrough" and not is_on and self._passthrough_cache:
            self._passthrough_cache.forget_pins(command.host)
        what, on, off = _TOGGLED[option]
        if action == option and not is_on:
            return f"{what}{command.host} stays {on}: {reason}"
        return f"{what}{command.host} is {on if is_on else off} from now on"

    def publish(self, update: Update | QuicRefused) -> None:
        """Tell the sinks."""
        self.hub.publish(update)

    def signal_workers(self, number: int) -> None:
        """Send a signal to the processes that carry flows, if others than this one do."""
        if self._workers:
            self._workers.signal(number)

    def note(self, text: str) -> None:
        """Tell the user something while the session runs."""
        self.hub.publish(Note(text))

    @property
    def on_secret(self) -> Callable[[bytes], None] | None:
        """A callback for TLS secrets, for any thread; None if no output needs them."""
        keylog = self.outputs.keylog
        if not self.hub.wants(TlsSecret):
            return keylog

        def tell(line: bytes) -> None:
            if keylog:
                keylog(line)
            self.hub.publish(TlsSecret(line))

        return tell

    def _lose(self, sink: Sink, failure: MitmError | None) -> None:
        """A sink has ended early; the others go on. The session ends if no sink is left, or if the
        reader of the display has gone, unless it does not depend on outputs."""
        self.hub.remove(sink)
        is_wanted = bool(self.hub.sinks) and (failure or sink is not self.outputs.display)
        if failure:
            self._fail_output(sink.name, failure)
        elif is_wanted or not self.needs_outputs:
            self.note(f"nobody reads {sink.name} any more")
        if self.needs_outputs and not is_wanted:
            self._reach("output failed" if failure else "output closed")

    def _break(self, sink: Sink, error: Exception) -> None:
        """A sink has raised an exception that it should not."""
        log.error("%s", sink.name, exc_info=error)
        reason = f"{sink.name}: internal error: {type(error).__name__}: {error}"
        hint = "the same with -vv shows where; please report it"
        self._lose(sink, MitmError(reason, hint=hint))

    def _lose_key_log(self, failure: MitmError) -> None:
        self._fail_output(str(self.config.keylog), failure)

    def _fail_output(self, name: str, failure: MitmError) -> None:
        if name in self.cut_off:  # each process finds out that the key log cannot be written
            return
        self.cut_off.add(name)
        self._complain(failure)
        self.hub.publish(OutputFailed(failure.message))

    async def _start_workers(
        self, sources: Sequence[FlowSource], interceptor: TlsInterceptor
    ) -> Workers | None:
        """None: flows are carried here. Raises MachineError."""
        if self._balance is None:
            return None
        from mitml4.session.workers.workers import Workers

        keep = [self.outputs.keylog.descriptor] if self.outputs.keylog else []
        workers = Workers.of(self, sources, interceptor, self._balance, self._lose_key_log, keep)
        self.flows.begin = workers.begin
        for source in sources:
            await source.outlive(workers.parent)
        for number, script in enumerate(self._scripts.scripts if self._scripts else ()):
            key = "script", number
            script.on_loaded = partial(workers.remember, key, *key)
        return workers

    def become_worker(self, complain: Complain) -> None:
        """See `workers.worker.ParentSession`."""
        self._complain = complain

    async def _serve(self, sources: Sequence[FlowSource], interceptor: TlsInterceptor) -> None:
        """Run flows until asked to stop, then wait for the open ones."""
        with ExitStack() as at_end:
            at_end.callback(self.memory.close)
            for each in (self.rules, self._workers, self._scripts):
                if each:
                    at_end.callback(each.close)
            at_end.callback(self.flows.refuse_waiting)
            await self._run_flows(sources, interceptor)

    async def _run_flows(self, sources: Sequence[FlowSource], interceptor: TlsInterceptor) -> None:
        services = [
            self.services_of(source, number, interceptor) for number, source in enumerate(sources)
        ]
        pairs = list(zip(sources, services, strict=True))
        async with trio.open_nursery() as nursery:
            for source, each in pairs:
                nursery.start_soon(self._accept, source, each)
                nursery.start_soon(source.watch, self)
                if source.owners:
                    nursery.start_soon(source.owners.run)
            nursery.start_soon(self.flows.run)
            if self._workers:
                nursery.start_soon(self._workers.run)
            if self.rules:
                nursery.start_soon(self.rules.watch, self.note)
            if self._scripts:
                for script in self._scripts.scripts:
                    nursery.start_soon(script.run, self.note)
            nursery.start_soon(_prepare_keys, interceptor.forge)
            if self.config.duration_s is not None:
                nursery.start_soon(self._end_after, self.config.duration_s)
            await self._stop_asked.wait()
            for source, each in pairs:
                for connection in await source.close():
                    self._enter(connection, source, each)
                if source.owners:
                    source.owners.flush()
            await self.drain()
            self.flows.refuse_waiting()
            if self._workers:
                await self._workers.finish(is_forced=self.flows.force_stop.is_set())
            if self._scripts:
                await self._scripts.finish()
            nursery.cancel_scope.cancel()

    async def _accept(self, source: FlowSource, services: Services) -> None:
        while True:
            connection = await source.accept()
            ends = connection.local_ends
            if source.owners is None or ends is None:
                self._enter(connection, source, services)
            else:
                source.owners.ask(*ends, partial(self._enter, connection, source, services))

    def _enter(
        self,
        connection: IncomingConnection,
        source: FlowSource,
        services: Services,
        process: RunningProcess | None = None,
    ) -> None:
        client, destination, asked = connection.client, connection.destination, connection.asked
        if asked is not destination and self.hub.wants(ClientAsked):
            self.hub.publish(ClientAsked(client=client, destination=destination, asked=asked))
        self.flows.enter(_queued(connection, source, services, process))

    async def drain(self) -> None:
        """Wait up to `drain_s` for the open flows to end, or until the second stage of stopping.

        The flows that `--max-flows` counts are what was asked for, so there is no limit for them.
        """
        counted_s = math.inf if self.reason == MAX_FLOWS else None
        await self.flows.wait_closed(self.config.drain_s, counted_s=counted_s)

    async def _end_after(self, duration_s: float) -> None:
        await trio.sleep(duration_s)
        self._reach("duration")

    def _reach(self, limit: str) -> None:
        """Begin the first stage of stopping, and never the second."""
        if not self.is_stopping:
            self.stop(limit)

    def services_of(self, source: FlowSource, number: int, interceptor: TlsInterceptor) -> Services:
        """The services of a source's flows."""
        servers = Servers(self.hub, source, self._tunnels(interceptor))
        return Services(
            publish=self.hub.publish,
            wants=self.hub.wants,
            connect=servers.connect,
            connect_by_name=servers.connect_by_name,
            relay=self.memory.relay,
            tls=interceptor,
            policy=self.policy.decide,
            hold_s=self.config.detect_timeout_s,
            shown=self._shown(),
            names_of=source.names_of,
            container=source.container,
            editing=self._editing,
            prover=self._prover(source, servers.connect, interceptor),
            ca_page=self._ca_page,
            proxy=source.proxy,
            source=number,
            # Each request asks it twice, and `trio.current_time` takes three more calls to answer.
            clock=trio.lowlevel.current_clock().current_time,
        )

    def _prover(
        self, source: FlowSource, connect: Connect, interceptor: TlsInterceptor
    ) -> Prover | None:
        """None: all hosts are allowed, or the source knows which names have led to addresses."""
        if source.sees_lookups or not self.config.policy.allow:
            return None
        return Prover(interceptor, connect)

    def _tunnels(self, interceptor: TlsInterceptor) -> Tunnels | None:
        if not self.config.routes:
            return None
        from mitml4.session.destinations.tunnels import Tunnels

        return Tunnels(self.config.routes, interceptor)

    @property
    def _editing(self) -> EditingServices | None:
        """Rules come before scripts. What `--allow` refuses in HTTP/2 is answered without both."""
        if not (self.rules or self.scripts or self.config.policy.allow):
            return None
        files, scripts = self.rules, self.scripts

        def editor() -> Editor:
            rules = (files.editor,) if files else ()
            found = (*rules, *scripts)
            return found[0] if len(found) == 1 else Editors(found)

        return EditingServices(editor, self.config.edit_limit, self.memory.bodies)

    def _shown(self) -> Shown:
        """An HTTP archive has headers, also where the events have none."""
        shown = self.config.shown
        return replace(shown, headers=shown.headers or self.config.har is not None)

    def _start_event(
        self, sources: Sequence[FlowSource], authority: Authority | None
    ) -> SessionStart:
        starts = [source.start() for source in sources]
        return SessionStart(
            version=__version__,
            mode=self.mode,
            interfaces=tuple(name for start in starts for name in start.interfaces),
            listeners=tuple(address for start in starts for address in start.listeners),
            ca=authority,
            table=next((start.table for start in starts if start.table), None),
            pid=os.getpid(),
            via=self.config.routes.described(),
            attached=next((start.attached for start in starts if start.attached), None),
        )


async def _prepare_keys(forge: Forge) -> None:
    """Generate the usual keys, so that few connections have to wait for them."""
    await forge.prepare(KeyType.EC_P256)
    await trio.sleep(_RSA_AFTER_S)
    await forge.prepare(KeyType.RSA_2048)


def _queued(
    connection: IncomingConnection,
    source: FlowSource,
    services: Services,
    process: RunningProcess | None,
) -> QueuedConnection:
    client = source if source.is_one_client else connection.client.ip
    return QueuedConnection(
        connection, services, client, process, is_only_client=source.is_one_client
    )


def _balance() -> Balance:
    """Imports all of the workers too, before the session may import nothing more."""
    import_module("mitml4.session.workers.workers")
    from mitml4.session.workers.balance import Balance

    return Balance()
