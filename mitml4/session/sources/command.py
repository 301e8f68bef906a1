"""The connections of a command in a separate network namespace: `run`'s flow source."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Final

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, MitmError
from mitml4.layers.tls import TlsInterceptor
from mitml4.net import dial
from mitml4.net.gate.gate import SynGate
from mitml4.net.listener import IncomingConnection, Listener
from mitml4.net.namespace.channel import NamespaceChannel
from mitml4.net.namespace.datagrams import CarriedDatagrams, DroppedDatagrams
from mitml4.net.namespace.dns import DnsRelay, Names, Refusals, names_by_file
from mitml4.net.namespace.namespace import Namespace, sources_of_host
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.tcp import TcpStream
from mitml4.protocols.policy import Decide
from mitml4.session.command.command import Command
from mitml4.session.config import RunConfig
from mitml4.session.saying import Say
from mitml4.session.sources.host_services import HostServices, is_loopback
from mitml4.session.sources.quic_refusals import tell_of_quic
from mitml4.session.sources.source import SessionControl, SourceStart
from mitml4.sinks.updates import Note

__all__ = ["CommandSource", "takes_loopback"]

_LINGER_S: Final = 1.0
"""How long descendants may outlive the command before a note says that they are waited for."""
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1"))


def takes_loopback(config: RunConfig) -> bool:
    """Whether connections to servers inside the namespace are redirected too: for `--loopback`, or
    because a `--block` concerns their addresses."""
    sources = sources_of_host()
    own = [*_LOOPBACK, *(ip_network(each) for each in (sources.v4, sources.v6) if each)]
    blocked = (pattern.concerns(each) for pattern in config.policy.block for each in own)
    return config.loopback or any(blocked)


@dataclass(frozen=True, slots=True)
class _Dialer:
    """Connects to the destinations of the command's connections."""

    namespace: Namespace
    takes_loopback: bool

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        """Connect inside the namespace if the destination is one of its addresses and something
        listens there. Otherwise connect from the host; over its loopback, from the client's
        address."""
        destination, client = connection.destination, connection.client
        if self.takes_loopback and self.is_inside(destination):
            with contextlib.suppress(ConnectionRefusedError):
                return await self._connect_inside(destination, client)
        source = client if is_loopback(destination) and is_loopback(client) else None
        return TcpStream(await dial.connect(destination, source=source))

    def is_inside(self, destination: Address) -> bool:
        sources = self.namespace.sources
        return is_loopback(destination) or destination.ip in (*sources.all_v4, *sources.all_v6)

    async def _connect_inside(self, destination: Address, client: Address) -> TcpStream:
        """Connect from the client's address. Its port is in use by the client's connection."""
        family = socket.AF_INET6 if destination.is_v6 else socket.AF_INET
        sock = self.namespace.dial_socket(family)
        return TcpStream(await dial.connect(destination, source=client, unconnected=sock))


class CommandSource:
    """A namespace with the command in it."""

    is_one_client = True
    container: str | None = None
    proxy: None = None
    sees_lookups = True
    dials_anywhere = False

    def __init__(
        self,
        config: RunConfig,
        command: Command,
        dialer: _Dialer,
        names: Names,
        listener: Listener,
        services: HostServices,
        owners: OwnerFinder,
    ) -> None:
        self._config = config
        self._command = command
        self._dialer = dialer
        self._names = names
        self._listener = listener
        self._services = services
        self.owners = owners

    @classmethod
    @asynccontextmanager
    async def opened(
        cls,
        config: RunConfig,
        namespace: Namespace,
        owners: OwnerFinder,
        command: Command,
        interceptor: TlsInterceptor,
        policy: Decide,
        note: Say,
        refusals: Refusals | None = None,
    ) -> AsyncIterator[CommandSource]:
        """The command's DNS, datagrams and connections are served while this is entered."""
        names = Names(by_file=names_by_file())
        datagrams = (
            CarriedDatagrams(namespace)
            if config.udp == "pass"
            else DroppedDatagrams(namespace, note, may_pass=not config.policy.allow)
        )
        listener = Listener(namespace.listener_socket)
        dialer = _Dialer(namespace, takes_loopback(config))
        async with trio.open_nursery() as nursery:
            relay = DnsRelay(namespace.dns, names, note, refusals=refusals)
            nursery.start_soon(relay.run)
            nursery.start_soon(datagrams.run)
            gate = SynGate(listener, NamespaceChannel(namespace.injection))
            nursery.start_soon(gate.run)
            services = HostServices(
                gate.accept,
                nursery,
                interceptor,
                policy,
                dialer.connect,
                also_watched=lambda to: config.loopback or config.routes.leads_to(to),
            )
            namespace.restrict()
            yield cls(config, command, dialer, names, listener, services, owners)
            nursery.cancel_scope.cancel()
        dropped = datagrams.count if isinstance(datagrams, DroppedDatagrams) else 0
        for lost in _lost(namespace, services, dropped):
            note(lost)

    def start(self) -> SourceStart:
        return SourceStart(listeners=(self._listener.address,))

    async def accept(self) -> IncomingConnection:
        return await self._services.accept()

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        return await self._dialer.connect(connection)

    async def dial(self, address: Address) -> TcpStream:
        return TcpStream(await dial.connect(address))

    def is_here(self, destination: Address) -> bool:
        return self._dialer.is_inside(destination)

    def source_address(self, _connection: IncomingConnection, stream: TcpStream) -> Address:
        return Address.of(stream.socket.getsockname())

    def names_of(self, destination: Address) -> tuple[str, ...]:
        if self._config.policy.allow:
            return self._names.all_of(destination.ip)
        return self._names.of(destination.ip)

    async def outlive(self, _pid: int) -> None:
        """Its processes end with this one."""

    async def watch(self, session: SessionControl) -> None:
        """Start the command; stop the session when it and its descendants have ended."""
        async with trio.open_nursery() as nursery:
            log = self._dialer.namespace.quic_log
            nursery.start_soon(tell_of_quic, log, session.publish, self.names_of)
            await self._watch_command(session)
            nursery.cancel_scope.cancel()

    async def _watch_command(self, session: SessionControl) -> None:
        command = self._command
        try:
            command.go()
        except MitmError as error:
            session.stop("command not run", error)
            return
        await command.ended.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_when_interrupted, session, command)
            if self._config.wait and not command.told_to_end:
                await self._wait_for_descendants(session)
            session.stop("command ended")
            if not command.left_nobody.is_set():
                session.stop(
                    "command ended"
                )  # a second time, for the second stage: they may never end

    async def close(self) -> list[IncomingConnection]:
        """End the command. There is nothing to return: SYNs are held until their flow accepts."""
        self._services.close()
        self._command.terminate()
        return []

    async def _wait_for_descendants(self, session: SessionControl) -> None:
        with trio.move_on_after(_LINGER_S):
            await self._command.left_nobody.wait()
            return
        program = self._config.argv[0]
        said = f"{program} has ended, what it started goes on: Ctrl-C ends that"
        session.publish(Note(said))
        await self._command.left_nobody.wait()


async def _stop_when_interrupted(session: SessionControl, command: Command) -> None:
    async for name in command.interruptions:
        session.stop(name)


def _lost(namespace: Namespace, services: HostServices, dropped: int) -> list[str]:
    """Notes to the user about traffic that was not intercepted."""
    said = [f"{dropped} datagrams were dropped"] if dropped > 1 else []
    if blocked := services.blocked:
        said.append(f"{_connections(blocked, 'refused')} (--block)")
    with contextlib.suppress(MachineError):
        if unwatched := services.carried - blocked + namespace.direct():
            said.append(f"{_connections(unwatched, 'not watched')}: add --loopback")
        if refused := namespace.quic_blocked():
            said.append(f"QUIC was refused, {refused} {'times' if refused > 1 else 'time'}")
    return said


def _connections(count: int, fate: str) -> str:
    some = "1 connection" if count == 1 else f"{count} connections"
    return f"{some} to this host (127.0.0.1, ::1) {'was' if count == 1 else 'were'} {fate}"
