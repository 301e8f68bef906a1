"""The clients of a proxy: `mitml4 proxy`'s flow source."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net import dial
from mitml4.net.listener import Accepted, Ends, IncomingConnection, Listener
from mitml4.net.owner.finder import OwnerFinder
from mitml4.net.tcp import TcpStream
from mitml4.session.flows.proxied import ProxyServices
from mitml4.session.sources.host_services import is_loopback
from mitml4.session.sources.source import SessionControl, SourceStart
from mitml4.sinks.updates import Note

__all__ = ["ProxyClient", "ProxySource", "listeners_at"]

_BACKLOG: Final = 4096


@dataclass(frozen=True, slots=True)
class ProxyClient:
    """A connection of a client to the proxy."""

    accepted: Accepted
    interface: str = ""

    @property
    def client(self) -> Address:
        return self.accepted.peer

    @property
    def source(self) -> Address:
        return self.accepted.peer

    @property
    def destination(self) -> Address:
        return self.accepted.own

    @property
    def asked(self) -> Address:
        return self.accepted.own

    @property
    def local_ends(self) -> Ends | None:
        is_local = is_loopback(self.client) or self.client.ip == self.destination.ip
        return (self.client, self.destination) if is_local else None

    async def accept(self) -> TcpStream:
        return TcpStream(self.accepted.socket)

    def refuse(self, _reason: OSError | None) -> None:
        dial.abort(self.accepted.socket)


class ProxySource:
    """The ports where clients find the proxy."""

    container: str | None = None
    sees_lookups = True
    dials_anywhere = True

    def __init__(
        self, listeners: Sequence[Listener], proxy: ProxyServices, owners: OwnerFinder | None = None
    ) -> None:
        self.proxy = proxy
        self.owners = owners
        self._listeners = listeners
        self._send, self._receive = trio.open_memory_channel[Accepted](0)
        self.is_one_client = all(is_loopback(each.address) for each in listeners)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, listeners: Sequence[Listener], proxy: ProxyServices, owners: OwnerFinder | None = None
    ) -> AsyncIterator[ProxySource]:
        """Clients are accepted while this is entered; the listeners are closed with it."""
        source = cls(listeners, proxy, owners)
        async with trio.open_nursery() as nursery:
            for each in listeners:
                nursery.start_soon(source._accept_at, each)
            yield source
            await source.close()
            nursery.cancel_scope.cancel()

    async def _accept_at(self, listener: Listener) -> None:
        while True:
            try:
                accepted = await listener.accept()
            except trio.ClosedResourceError:
                return
            try:
                await self._send.send(accepted)
            except BaseException:
                dial.abort(accepted.socket)
                raise

    def start(self) -> SourceStart:
        return SourceStart(listeners=tuple(each.address for each in self._listeners))

    async def accept(self) -> ProxyClient:
        return ProxyClient(await self._receive.receive())

    async def connect(self, connection: IncomingConnection) -> TcpStream:
        return await self.dial(connection.destination)

    async def dial(self, address: Address) -> TcpStream:
        return TcpStream(await dial.connect(address))

    def is_here(self, destination: Address) -> bool:
        return is_loopback(destination)

    def source_address(self, _connection: object, stream: TcpStream) -> Address:
        return Address.of(stream.socket.getsockname())

    def names_of(self, _destination: Address) -> tuple[str, ...]:
        return ()

    async def outlive(self, _pid: int) -> None:
        """They need nothing."""

    async def watch(self, session: SessionControl) -> None:
        """Say where it is. Nothing that it depends on can be lost."""
        at = " and ".join(str(each.address) for each in self._listeners)
        session.publish(Note(f"proxy for HTTP and SOCKS at {at}"))
        await trio.sleep_forever()

    async def close(self) -> list[ProxyClient]:
        for each in self._listeners:
            each.close()
        return []


def listeners_at(places: Sequence[Address]) -> list[Listener]:
    """Listen at these addresses, port 0 being one free port for all. Raises MachineError."""
    listeners: list[Listener] = []
    free = 0
    for place in places:
        port = place.port or free
        try:
            listeners.append(Listener(_listening(Address(place.ip, port))))
        except OSError as error:
            # Of the two loopback addresses of a host without IPv6, one is enough.
            if listeners and place.ip == "::1" and not _has_ipv6():
                continue
            for each in listeners:
                each.close()
            reason = f"cannot listen at {Address(place.ip, port)}: {error.strerror}"
            # A link-local address is invalid, because its interface is not named.
            is_elsewhere = error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL)
            hint = "ip address" if is_elsewhere else "another port, as in: --listen :8081"
            raise MachineError(reason, hint=hint) from error
        if not place.port:
            free = listeners[-1].address.port
    return listeners


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def _listening(place: Address) -> socket.socket:
    family = socket.AF_INET6 if place.is_v6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if place.is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if place.ip == "::" else 1)
        sock.bind((place.ip, place.port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
