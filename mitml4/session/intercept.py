"""A session of `intercept`: connections come by rules on the host, and leave with a mark.

Ctrl-C, SIGTERM, SIGHUP, the duration, or the reader of our output gone: any of them ends it, and
the rules are gone before `session.stop` is said.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from mitml4 import __version__
from mitml4.address import Address
from mitml4.errors import ExitCode, MachineError
from mitml4.events import CertificateAuthority as Authority
from mitml4.events import SessionStart
from mitml4.net import dial
from mitml4.net.capabilities import Capability
from mitml4.net.confinement import confine
from mitml4.net.links import Change
from mitml4.net.listener import IncomingConnection
from mitml4.net.rules.interception import Interception, check, intercepting, plan
from mitml4.net.rules.scope import Scope
from mitml4.net.stream import TcpStream
from mitml4.net.tap import Tap
from mitml4.session.config import InterceptConfig
from mitml4.session.imports import import_all
from mitml4.session.interceptor import stored_authority, tls_opener
from mitml4.session.session import Session, Source, prepare_process
from mitml4.session.summary import summary
from mitml4.signals import ending_signals
from mitml4.sinks.table.live import LiveTable

__all__ = ["intercept"]

_QUIC_EVERY_S: Final = 2.0
_KEPT: Final = (Capability.NET_ADMIN, Capability.NET_RAW)
"""What connections need that are held, and that go out with a mark."""

Say = Callable[[str], None]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


async def intercept(config: InterceptConfig, say: Say = _say) -> ExitCode:
    """Run a session to its end. Raises MitmError for what ends it early; nothing stays either."""
    if config.dry_run:
        print("\n".join(plan(config.scope)))
        return ExitCode.DONE
    check(config.scope)
    prepare_process()
    # In the background, the terminal must not stop us either.
    signal.signal(signal.SIGTTIN, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    started = trio.current_time()
    taps = [Tap.open(name) for name in config.scope.interfaces] if config.packets else []
    session = _InterceptSession(config, taps, say)
    outputs, hub = session.outputs, session.hub
    authority = stored_authority(config.ca_dir, say)
    interceptor, named = tls_opener(config, authority, outputs.on_secret)
    rules = _Rules(config.scope, outputs.table)
    async with _signals(session):
        await session.run(rules.up(say), interceptor, named)
    for note in outputs.notes:
        say(f"note: {note}")
    took = trio.current_time() - started
    say(summary(hub.totals, took, rules.quic_blocked, outputs.files, hub.dropped_events))
    return ExitCode.DONE


class _InterceptSession(Session):
    """A session that tells the user where it may: in its table, if it has the screen."""

    def __init__(self, config: InterceptConfig, taps: Sequence[Tap], say: Say) -> None:
        super().__init__(config, taps)
        self._say = say

    def note(self, text: str) -> None:
        if table := self.outputs.table:
            table.model.notes = (*table.model.notes, text)
        else:
            self._say(f"note: {text}")


class _Rules:
    """The intake: a scope's rules on this host."""

    def __init__(self, scope: Scope, table: LiveTable | None) -> None:
        self.scope = scope
        self.table = table
        self.quic_blocked = 0
        self.interception: Interception

    @asynccontextmanager
    async def up(self, say: Say) -> AsyncIterator[_Rules]:
        """The rules in place, for as long as this is entered. Raises MitmError."""
        async with intercepting(self.scope) as self.interception:
            for note in self.interception.notes:
                say(f"note: {note}")
            if self.table:
                self.table.model.notes = self.interception.notes
            import_all()
            confine(_KEPT)
            yield self

    @property
    def listeners(self) -> Sequence[Source]:
        return [self.interception.gate]

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        destination = connection.destination

        def name_source(sock: trio.socket.SocketType) -> None:
            self.interception.channel.name_source(sock, destination, connection.source)

        bound = name_source if self.scope.spoof_source else None
        mark = self.interception.own_mark
        return TcpStream(await dial.connect(destination, mark=mark, bound=bound))

    def source(self, connection: IncomingConnection, stream: TcpStream) -> Address:
        return (
            connection.source
            if self.scope.spoof_source
            else Address.of(stream.socket.getsockname())
        )

    def name_of(self, destination: Address) -> str | None:
        return None

    def start_event(self, authority: Authority | None) -> SessionStart:
        return SessionStart(
            version=__version__,
            mode="intercept",
            interfaces=self.scope.interfaces,
            listeners=(self.interception.address,),
            ca=authority,
            table=self.interception.table,
            pid=os.getpid(),
        )

    async def watch(self, session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.interception.gate.run)
            nursery.start_soon(self._watch_guard, session)
            nursery.start_soon(self._watch_quic)
            nursery.start_soon(self._watch_suspension, session)
            nursery.start_soon(self._watch_links, session)

    async def close(self) -> list[IncomingConnection]:
        await self.interception.close_source()
        return await self.interception.gate.waiting()

    async def _watch_guard(self, session: Session) -> None:
        reason = await self.interception.wait_lost()
        session.stop("rules lost", MachineError(reason, hint="start the session again"))

    async def _watch_suspension(self, session: Session) -> None:
        """Ctrl-Z stops this process: new connections must not wait for it meanwhile."""
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN:
            return
        with trio.open_signal_receiver(signal.SIGTSTP) as received:
            async for _ in received:
                if not session.stop_asked.is_set():
                    await self._suspend(session)

    async def _suspend(self, session: Session) -> None:
        for connection in await self.close():
            connection.refuse(TimeoutError())  # silence: its client asks again, past us
        session.note(
            "suspended: new connections pass by unseen, open ones wait (fg, or kill -CONT)"
        )
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns once the process goes on
        signal.signal(signal.SIGTSTP, handler)
        await self.interception.reopen_source()
        session.note("new connections are intercepted again")

    async def _watch_links(self, session: Session) -> None:
        while True:
            for change in await self.interception.links.changes():
                self.interception.follow(change)
                session.note(_told(change))

    async def _watch_quic(self) -> None:
        while self.scope.quic == "block":
            self.quic_blocked = await self.interception.quic_blocked()
            if self.table:
                self.table.model.quic_blocked = self.quic_blocked
            await trio.sleep(_QUIC_EVERY_S)


def _told(change: Change) -> str:
    match change.what:
        case "renamed":
            return f"{change.name} is now {change.new_name}, and is intercepted as before"
        case "gone":
            return f"{change.name} has gone: nothing is intercepted over it until it comes back"
        case "back":
            return f"{change.name} is back: new connections over it are intercepted"


@asynccontextmanager
async def _signals(session: Session) -> AsyncIterator[None]:
    """The first one asks the session to stop; each further one to hurry."""
    with trio.open_signal_receiver(*ending_signals()) as received:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for number in received:
                    session.stop(signal.Signals(number).name)

            nursery.start_soon(listen)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
