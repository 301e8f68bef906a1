"""Connections of a command to 127.0.0.1 and ::1 that nothing in its namespace listens for: they are
for the services of the host, and reach them unseen."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import trio

from mitml4.address import Address
from mitml4.layers.guard import without_opening
from mitml4.layers.relay import Relay
from mitml4.layers.tls import TlsOpener
from mitml4.net import egress
from mitml4.net.listener import Arrival
from mitml4.net.stream import TcpStream
from mitml4.session.flow import Flow, Services
from mitml4.session.session import Source

__all__ = ["HostServices", "is_loopback"]


def is_loopback(destination: Address) -> bool:
    return ipaddress.ip_address(destination.ip).is_loopback


class HostServices:
    """A source of the connections that are to be intercepted; the others it carries itself."""

    def __init__(
        self, source: Source, nursery: trio.Nursery, opener: TlsOpener, *, also_watched: bool
    ) -> None:
        """`also_watched`: connections to the host's services are to be intercepted as well."""
        self._source = source
        self._nursery = nursery
        self._also_watched = also_watched
        self._closed = False
        self._services = Services(
            publish=lambda _event: None,
            connect=_connect,
            relay=Relay(),
            tls=replace(opener, judge=without_opening(opener.judge, "loopback")),
        )

    async def accept(self) -> Arrival:
        """The next connection that is to be intercepted. Checkpoints."""
        while True:
            arrival = await self._source.accept()
            if self._closed:
                arrival.refuse(None)
            elif self._also_watched or not is_loopback(arrival.destination):
                return arrival
            else:
                self._nursery.start_soon(Flow(0, arrival, self._services).run)

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True


async def _connect(destination: Address, _client: Address) -> TcpStream:
    return TcpStream(await egress.connect(destination))
