"""Connections of a command to services of the host (127.0.0.1, ::1) that are not intercepted.

They are relayed unseen and publish no events, unless they are blocked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from mitml4.address import Address
from mitml4.events import FlowClose
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsInterceptor
from mitml4.net.listener import IncomingConnection
from mitml4.net.tcp import TcpStream
from mitml4.protocols.conversation import Target
from mitml4.protocols.policy import Decide, without_interception
from mitml4.session.flows.flow import Flow
from mitml4.session.flows.services import Services
from mitml4.sinks.updates import Published

__all__ = ["HostServices", "is_loopback"]

Accept: TypeAlias = Callable[[], Awaitable[IncomingConnection]]
Connect: TypeAlias = Callable[[IncomingConnection], Awaitable[TcpStream]]


def is_loopback(destination: Address) -> bool:
    return ipaddress.ip_address(destination.ip).is_loopback


class HostServices:
    """Accepts connections, returns those to intercept, and relays the others."""

    def __init__(
        self,
        accept: Accept,
        nursery: trio.Nursery,
        interceptor: TlsInterceptor,
        policy: Decide,
        connect: Connect,
        *,
        also_watched: Callable[[Address], bool],
    ) -> None:
        """`accept` gives the next connection, `connect` dials for it. `also_watched`: which
        connections to the host's services to intercept as well, by their destinations."""
        self.carried = 0
        """Connections that were relayed unseen."""
        self.blocked = 0
        """Connections that were blocked."""
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
            tls=interceptor,
            policy=without_interception(policy, "loopback"),
        )

    async def accept(self) -> IncomingConnection:
        """The next connection to intercept. Checkpoints."""
        while True:
            connection = await self._accept()
            if self._closed:
                connection.refuse(None)
            elif self._is_watched(connection.destination):
                return connection
            else:
                self._nursery.start_soon(Flow(0, connection, self._services).run)

    def _is_watched(self, destination: Address) -> bool:
        """A connection that is blocked by its destination is reported like any other."""
        if not is_loopback(destination) or self._also_watched(destination):
            return True
        action, _ = self._services.policy((Target(destination.ip, destination.port),))
        return action == "block"

    def _note_block(self, event: Published) -> None:
        self.blocked += isinstance(event, FlowClose) and event.reason in ("blocked", "denied")

    async def _connect(self, connection: IncomingConnection, _name: str | None) -> TcpStream:
        stream = await self._connect_on(connection)
        self.carried += 1
        return stream

    def close(self) -> None:
        """Refuse all further connections."""
        self._closed = True
