"""A session of `run`: one command in a namespace of its own, and nothing changed on the host.

The namespace is made and the command forked before anything else, while this process has one thread
and no secret; the command waits until all is ready. Its end is the session's, or that of the last
process it left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from typing import Final

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4 import __version__
from mitml4.address import Address
from mitml4.errors import ExitCode, MachineError, MitmError
from mitml4.events import CertificateAuthority as Authority
from mitml4.events import SessionStart
from mitml4.layers.tls import TlsInterceptor
from mitml4.net import dial, processes
from mitml4.net.capabilities import Capability
from mitml4.net.confinement import confine
from mitml4.net.gate.gate import SynGate
from mitml4.net.listener import IncomingConnection, Listener
from mitml4.net.namespace.channel import NamespaceChannel
from mitml4.net.namespace.datagrams import CarriedDatagrams, DroppedDatagrams
from mitml4.net.namespace.dns import DnsRelay, Names, names_by_file
from mitml4.net.namespace.launch import Launch, find_program
from mitml4.net.namespace.namespace import Namespace, sources_of_host
from mitml4.net.stream import TcpStream
from mitml4.net.tap import Tap
from mitml4.session.browsers import BrowserTrust, withdraw
from mitml4.session.command import Command
from mitml4.session.config import RunConfig
from mitml4.session.host_services import HostServices, is_loopback
from mitml4.session.imports import import_all
from mitml4.session.interceptor import tls_opener
from mitml4.session.roots import Authorities, CommandRoots
from mitml4.session.session import Session, Source, prepare_process
from mitml4.session.trust import CommandTrust

__all__ = ["run"]

_LINGER_S: Final = 1.0
"""How long descendants may outlive the command before it is said that they are waited for."""
_CLOSE_TIMEOUT_S: Final = 0.5
"""How long connections of a command that has ended may take to end as well."""
_POLL_INTERVAL_S: Final = 0.02
_STANDARD_ERROR: Final = 2
_KEPT: Final = (Capability.KILL, Capability.NET_ADMIN, Capability.NET_RAW)
"""As root: signals to us are passed on to the command, whoever it is; and what is sent to it bears
marks."""
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1"))
_GOES_ON: Final = "the command goes on"

Say = Callable[[str], None]
Complain = Callable[[MitmError], None]


def run(config: RunConfig, say: Say, complain: Complain) -> int:
    """Run a command to its end; its status, as a shell reports it, or 1 where that is 0 but what
    was to be written is not: `complain` has then been told why.

    Raises CommandError when it cannot be run, MitmError for what ends the session early.
    """
    program = find_program(config.argv[0], os.environ)
    _occupy_standard_descriptors()
    at_end = partial(withdraw, dict(os.environ), config.argv)
    with Namespace.open(loopback=_takes_loopback(config), at_end=at_end) as namespace:
        if namespace.has_users_of_its_own and _changes_user(program):
            say(f"note: {program} is set-user-ID: in a namespace of yours it gets no privilege")
        launch = Launch.prepare(program, config.argv, namespace)
        processes.close_memory()
        processes.become_subreaper()
        # The command may have the terminal for itself; what we say is to reach it all the same.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        return trio.run(_run, config, namespace, launch, say, complain)


def _takes_loopback(config: RunConfig) -> bool:
    """Whether what the command says to servers inside comes to us as well: to be watched, or
    because a block concerns the addresses that they have."""
    sources = sources_of_host()
    own = [*_LOOPBACK, *(ip_network(each) for each in (sources.v4, sources.v6) if each)]
    blocked = (pattern.concerns(each) for pattern in config.policy.block for each in own)
    return config.loopback or any(blocked)


def _occupy_standard_descriptors() -> None:
    """Where the caller has closed one, nothing of ours takes its place, and what we say goes
    nowhere; the command finds it closed."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(descriptor)
    sys.stderr = sys.stderr or os.fdopen(_STANDARD_ERROR, "w", closefd=False)


def _changes_user(program: str) -> bool:
    mode = os.stat(program).st_mode
    return bool(mode & stat.S_ISUID) and os.stat(program).st_uid != os.geteuid()


async def _run(
    config: RunConfig, namespace: Namespace, launch: Launch, say: Say, complain: Complain
) -> int:
    prepare_process()
    try:
        taps = [namespace.tap()] if config.packets else []
        session = _RunSession(config, say, complain, taps)
        environ = dict(os.environ)
        roots = CommandRoots(environ if config.trust else {})
        authorities = Authorities.of(len(roots.sets))
        interceptor, named = tls_opener(
            config,
            authorities.widest,
            session.outputs.on_secret,
            sets=roots.sets,
            narrower=authorities.by_sets,
        )
        if config.trust:
            trust = CommandTrust.of(roots, authorities, environ)
            browsers = BrowserTrust(trust.builtin, environ, config.argv, trust.directory)
            namespace.mount_files(trust.directory, {**trust.files, **browsers.files})
            browsers.show(namespace)
            namespace.for_the_end(each.public_bytes(Encoding.DER) for each in trust.builtin)
            environ = dict(trust.environ)
    except BaseException:
        launch.cancel()
        raise
    inside = _Inside(config, namespace, launch, environ, say)
    async with trio.open_nursery() as nursery:
        await nursery.start(inside.command.watch)
        await session.run(inside.up(interceptor), interceptor, named)
        for note in session.outputs.notes:
            say(f"note: {note}")
        await inside.command.ended.wait()
        nursery.cancel_scope.cancel()
    assert inside.command.status is not None
    return inside.command.status or (ExitCode.FAILED if session.has_lost_output else ExitCode.DONE)


class _RunSession(Session):
    """A session that ends with its command, not with those who watch it."""

    one_client = True

    def __init__(
        self, config: RunConfig, say: Say, complain: Complain, taps: Sequence[Tap]
    ) -> None:
        super().__init__(config, taps)
        self.has_lost_output = False
        self._say = say
        self._complain = complain

    def output_lost(self, reason: str, failure: MitmError | None) -> None:
        if failure is None:
            self._say(f"note: {reason}; {_GOES_ON}")
        else:
            self.has_lost_output = True
            self._complain(failure)

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    async def drain(self) -> None:
        """Nobody is left to hear what servers still say; what was sent to them is to arrive."""
        with trio.move_on_after(self.config.drain_s):
            with trio.move_on_after(_CLOSE_TIMEOUT_S):
                await super().drain()
            flows = self.flows.values()
            while (  # noqa: ASYNC110 - the kernel tells nobody
                not all(flow.is_delivered for flow in flows) and not self.force_stop.is_set()
            ):
                await trio.sleep(_POLL_INTERVAL_S)


class _Inside:
    """The intake: a namespace, with the command in it."""

    def __init__(
        self,
        config: RunConfig,
        namespace: Namespace,
        launch: Launch,
        environ: Mapping[str, str],
        say: Say,
    ) -> None:
        self.config = config
        self.command = Command(launch)
        self._namespace = namespace
        self._launch = launch
        self._environ = environ
        self._say = say
        self._takes_loopback = _takes_loopback(config)
        self._names = Names(by_file=names_by_file())
        self._datagrams = (
            CarriedDatagrams(namespace)
            if config.udp == "pass"
            else DroppedDatagrams(namespace, self._note)
        )
        self._listener = Listener(namespace.flow_source)

    @asynccontextmanager
    async def up(self, interceptor: TlsInterceptor) -> AsyncIterator[_Inside]:
        """Everything that the command needs of the host, for as long as this is entered."""
        async with trio.open_nursery() as nursery:
            relay = DnsRelay(self._namespace.dns, self._names, self._note)
            nursery.start_soon(relay.run)
            nursery.start_soon(self._datagrams.run)
            gate = SynGate(self._listener, NamespaceChannel(self._namespace.injection))
            nursery.start_soon(gate.run)
            self._source = HostServices(
                gate, nursery, interceptor, self.connect, also_watched=self.config.loopback
            )
            self._namespace.seal()
            import_all()
            confine(_KEPT)
            yield self
            nursery.cancel_scope.cancel()
        self._say_what_was_lost()

    @property
    def listeners(self) -> Sequence[Source]:
        return [self._source]

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        """To a server inside, if it is for one of ours and there is one; else from the host, over
        whose loopback with the client's address."""
        destination, client = connection.destination, connection.client
        if self._takes_loopback and self._is_inside(destination):
            with contextlib.suppress(ConnectionRefusedError):
                return await self._connect_inside(destination, client)
        source = client if is_loopback(destination) and is_loopback(client) else None
        return TcpStream(await dial.connect(destination, source=source))

    def source(self, connection: IncomingConnection, stream: TcpStream) -> Address:
        return Address.of(stream.socket.getsockname())

    def name_of(self, destination: Address) -> str | None:
        return self._names.of(destination.ip)

    def start_event(self, authority: Authority | None) -> SessionStart:
        return SessionStart(
            version=__version__,
            mode="run",
            interfaces=(),
            listeners=(self._listener.address,),
            ca=authority,
            table=None,
            pid=os.getpid(),
        )

    async def watch(self, session: Session) -> None:
        """Let the command go, and the session end when nobody needs it any more."""
        command = self.command
        try:
            self._launch.go(self._environ)
        except MitmError as error:
            session.stop("command not run", error)
            return
        await command.ended.wait()
        command.interrupted = session.stop
        if self.config.wait and not command.told_to_end:
            await self._wait_for_descendants()
        session.stop("command ended")
        if not command.left_nobody.is_set():
            session.force_stop.set()

    async def close(self) -> list[IncomingConnection]:
        """None of them is connected yet: they are held until we accept them."""
        self._source.close()
        self.command.terminate()
        return []

    async def _wait_for_descendants(self) -> None:
        with trio.move_on_after(_LINGER_S):
            await self.command.left_nobody.wait()
            return
        self._note(f"{self.config.argv[0]} has ended, what it started goes on: Ctrl-C ends that")
        await self.command.left_nobody.wait()

    def _say_what_was_lost(self) -> None:
        if isinstance(self._datagrams, DroppedDatagrams) and self._datagrams.count > 1:
            self._note(f"{self._datagrams.count} datagrams were dropped")
        if blocked := self._source.blocked:
            self._note(f"{_connections(blocked, 'refused')} (--block)")
        with contextlib.suppress(MachineError):
            if unwatched := self._source.carried - blocked + self._namespace.direct():
                self._note(f"{_connections(unwatched, 'not watched')}: add --loopback")
            if refused := self._namespace.quic_blocked():
                self._note(f"QUIC was refused, {refused} {'times' if refused > 1 else 'time'}")

    def _is_inside(self, destination: Address) -> bool:
        sources = self._namespace.sources
        return is_loopback(destination) or destination.ip in (*sources.all_v4, *sources.all_v6)

    async def _connect_inside(self, destination: Address, client: Address) -> TcpStream:
        """From the client's address; its port is taken, by the client's own connection."""
        family = socket.AF_INET6 if destination.is_v6 else socket.AF_INET
        sock = self._namespace.dial_socket(family)
        return TcpStream(await dial.connect(destination, source=client, unconnected=sock))

    def _note(self, text: str) -> None:
        self._say(f"note: {text}")


def _connections(count: int, fate: str) -> str:
    some = "1 connection" if count == 1 else f"{count} connections"
    return f"{some} to this host (127.0.0.1, ::1) {'was' if count == 1 else 'were'} {fate}"
