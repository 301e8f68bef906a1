"""Connections of a command to 127.0.0.1 and ::1 that are not to be intercepted: they reach the
services of the host unwatched, and are told of only where they are blocked."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

import trio

from mitml4.address import Address
from mitml4.events import Event, FlowClose
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.listener import IncomingConnection
from mitml4.net.tcp import TcpStream
from mitml4.protocols.conversation import Target
from mitml4.protocols.policy import without_interception
from mitml4.session.flow import Flow, Services

__all__ = ["HostServices", "is_loopback"]

Accept: TypeAlias = Callable[[], Awaitable[IncomingConnection]]
Connect: TypeAlias = Callable[[IncomingConnection], Awaitable[TcpStream]]


def is_loopback(destination: Address) -> bool:
    return ipaddress.ip_address(destination.ip).is_loopback


class HostServices:
    """A source of the connections that are to be intercepted; the others it carries itself."""

    def __init__(
        self,
        accept: Accept,
        nursery: trio.Nursery,
        interceptor: TlsInterceptor,
        connect: Connect,
        *,
        also_watched: bool,
    ) -> None:
        """`accept` gives the next connection, `connect` dials for it. `also_watched`: connections
        to the host's services are to be intercepted as well."""
        self.carried = 0
        """Connections that were made unwatched."""
        self.blocked = 0
        """Those of them that asked for what they may not."""
        self._connect_on = connect
        self._accept = accept
        self._nursery = nursery
        self._also_watched = also_watched
        self._closed = False
        self._services = Services(
            publish=self._note_block,
            wants=lambda kind: kind is FlowClose,
            connect=self._connect,
            relay=Relay(),
            tls=replace(interceptor, policy=without_interception(interceptor.policy, "loopback")),
        )

    async def accept(self) -> IncomingConnection:
        """The next connection that is to be intercepted. Checkpoints."""
        while True:
            connection = await self._accept()
            if self._closed:
                connection.refuse(None)
            elif self._is_watched(connection.destination):
                return connection
            else:
                self._nursery.start_soon(Flow(0, connection, self._services).run)

    def _is_watched(self, destination: Address) -> bool:
        """A connection that is refused is told of, like any other that is."""
        if self._also_watched or not is_loopback(destination):
            return True
        action, _ = self._services.tls.policy((Target(destination.ip, destination.port),))
        return action == "block"

    def _note_block(self, event: Event) -> None:
        self.blocked += isinstance(event, FlowClose) and event.reason == "blocked"

    async def _connect(self, connection: IncomingConnection) -> TcpStream:
        stream = await self._connect_on(connection)
        self.carried += 1
        return stream

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True
