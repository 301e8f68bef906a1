"""Connects to the servers of a source's flows, directly or through other proxies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mitml4.address import Address
from mitml4.net.listener import IncomingConnection
from mitml4.net.stream import Stream
from mitml4.net.tcp import TcpStream
from mitml4.protocols.policy import Target
from mitml4.session.destinations.routes import Chain
from mitml4.session.destinations.tunnels import Tunnels
from mitml4.session.flows.elsewhere import Elsewhere
from mitml4.session.reporting.hub import Hub
from mitml4.session.sources.source import FlowSource
from mitml4.sinks.updates import ServerConnected

__all__ = ["Servers"]


class Servers:
    """The servers of one source; sinks that ask for it are told of each connection's addresses."""

    def __init__(self, hub: Hub, source: FlowSource, tunnels: Tunnels | None) -> None:
        self._hub = hub
        self._source = source
        self._tunnels = tunnels

    async def connect(self, connection: IncomingConnection, name: str | None) -> Stream:
        """See `Services.connect`."""
        source, tunnels, destination = self._source, self._tunnels, connection.destination
        chain: Chain = ()
        if tunnels and not source.is_here(destination):
            chain = await tunnels.through(destination, name)
        if not chain:
            transport = await source.connect(connection)
            if self._hub.wants(ServerConnected):
                self._tell(connection, source.source_address(connection, transport), destination)
            return transport
        assert tunnels
        asked = None if isinstance(connection, Elsewhere) and connection.by_address else name
        return await tunnels.connect(chain, self._dialling_for(connection), destination, asked)

    async def connect_by_name(
        self, connection: IncomingConnection, target: Target
    ) -> Stream | None:
        """See `Services.connect_by_name`."""
        chain = self._tunnels.for_name(target) if self._tunnels else ()
        if not (self._tunnels and chain):
            return None
        return await self._tunnels.connect_by_name(chain, self._dialling_for(connection), target)

    def _dialling_for(
        self, connection: IncomingConnection
    ) -> Callable[[Address], Awaitable[TcpStream]]:
        async def dial(proxy: Address) -> TcpStream:
            transport = await self._source.dial(proxy)
            self._tell(connection, Address.of(transport.socket.getsockname()), proxy)
            return transport

        return dial

    def _tell(self, connection: IncomingConnection, from_: Address, to: Address) -> None:
        if self._hub.wants(ServerConnected):
            flow = connection.original if isinstance(connection, Elsewhere) else connection
            self._hub.publish(
                ServerConnected(
                    client=connection.client,
                    wanted=flow.destination,
                    source=from_,
                    destination=to,
                )
            )
