"""The connections of a flow to servers: to the one that its client has connected to, and to others
that the client asks for as its proxy, or that a rule names."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Literal, TypeAlias

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.edit.messages import Server
from mitml4.events import CloseReason
from mitml4.layers.editing.elsewhere import connect_tls
from mitml4.layers.proxy.refusal import Refused
from mitml4.layers.report import Report
from mitml4.net.dial import EXHAUSTED
from mitml4.net.listener import IncomingConnection
from mitml4.net.stream import Stream
from mitml4.protocols.policy import Target
from mitml4.session.flows.elsewhere import Elsewhere
from mitml4.session.flows.reaching import CONNECT_S, addresses_of, first_connected, is_elsewhere
from mitml4.session.flows.services import Services

__all__ = ["FlowServers", "NotConnected", "kind_of", "reason_of"]

Loss: TypeAlias = Literal["refused", "reset", "timeout", "internal"]


@dataclass(frozen=True, slots=True)
class NotConnected:
    """There is no connection to the server."""

    reason: CloseReason
    error: OSError | None
    """The error that the client gets; None: a reset."""
    had_accepted: bool = False
    """The server accepted it and reset it at once: the client gets the same."""


class FlowServers:
    """Connects to them, and remembers what the flow has to close in the end."""

    __slots__ = ("_connection", "_report", "_services", "again", "connections", "name")

    def __init__(
        self,
        connection: IncomingConnection,
        services: Services,
        report: Report,
        name: str | None,
    ) -> None:
        """`name`: the server's, if it is known."""
        self._connection = connection
        self._services = services
        self._report = report
        self.name = name
        self.again: Callable[[], Awaitable[Stream]] | None = None
        """How to connect to the server that the client has asked us for, as its proxy."""
        self.connections: list[Stream] = []
        """All that may be open, also where the task that dialled was cancelled."""

    async def connect(self, name: str | None = None) -> Stream | NotConnected:
        """Connect to the flow's server; a failure is reported. `name`: as for `dial`."""
        try:
            with trio.move_on_after(CONNECT_S):
                return await self.dial(name)
            self._report.error("server", "connect", "timeout", "no answer")
            return NotConnected("timeout", TimeoutError())
        except (ConnectionResetError, BrokenPipeError):
            return NotConnected("reset", None, had_accepted=True)
        except OSError as error:
            kind = kind_of(error, "refused")
            self._report.error("server", "connect", kind, reason_of(error))
            # An exception refers to the frames that it passed through, so a copy is kept.
            return NotConnected("error" if kind == "internal" else kind, copy(error))

    async def dial(self, name: str | None = None) -> Stream:
        """Connect to the flow's server. `name`: the server's, where a layer has learned it. Raises
        OSError."""
        if self._services.proxy:
            if self.again is None:  # the destination of the connection is ourselves
                raise OSError(errno.EHOSTUNREACH, "no server was asked for")
            return await self.again()
        return self.keep(await self._services.connect(self._connection, name or self.name))

    def keep(self, stream: Stream) -> Stream:
        """See that it is closed with the flow. A client may ask for any number of servers."""
        self.connections = [each for each in self.connections if not each.transport.is_closed]
        self.connections.append(stream)
        return stream

    async def connect_asked(self, address: Address, name: str | None) -> Stream:
        """Connect to a host that a client of the proxy has named. What was decided of its address
        must not depend on what another proxy finds for the name."""
        by_address = is_elsewhere(self._connection.client)
        return await self._connect_to(Elsewhere(self._connection, address, by_address), name)

    async def connect_by_name(self, target: Target) -> Stream | None:
        """The same where another proxy looks the name up; None: nobody does."""
        if self._services.connect_by_name is None:
            return None
        stream = await self._services.connect_by_name(self._connection, target)
        return self.keep(stream) if stream else None

    async def connect_for_rule(self, server: Server) -> Stream:
        """Connect to a server that a rule names. Raises OSError."""
        target = Target(server.host, server.port)
        action, _ = self._services.policy((target,))
        if action == "block":
            raise OSError(errno.EACCES, "blocked")
        try:
            addresses = await addresses_of(target)
        except Refused as refused:
            raise OSError(errno.EHOSTUNREACH, str(refused)) from None

        async def connect(address: Address) -> Stream:
            return await self._connect_to(Elsewhere(self._connection, address), server.host)

        stream, _ = await first_connected(addresses, connect)
        if server.scheme == "https":
            return await connect_tls(self._services.tls, stream, server.host, (b"http/1.1",))
        return stream

    async def _connect_to(self, server: Elsewhere, name: str | None) -> Stream:
        return self.keep(await self._services.connect(server, name))


def kind_of(error: OSError, usual: Loss) -> Loss:
    """What a connection was lost by."""
    if error.errno in EXHAUSTED:
        return "internal"
    return "timeout" if isinstance(error, TimeoutError) else usual


def reason_of(error: OSError) -> str:
    """The words for it."""
    return error.strerror or str(error)
