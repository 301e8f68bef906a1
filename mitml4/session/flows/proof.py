"""Whether a server is who its client says, where nobody has seen the client's lookups
(`intercept --allow`).

An address is that of a name if this host's own lookup of the name gives it, or if a server there
shows a certificate for the name that verifies, in a handshake of our own. That handshake has
nothing of the client's in it but the name, which is allowed.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from cachetools import TTLCache

from mitml4.address import Address
from mitml4.layers.editing.elsewhere import connect_tls
from mitml4.layers.handshake import HandshakeTools
from mitml4.net.listener import IncomingConnection
from mitml4.net.stream import Stream
from mitml4.tasks import fail_after

__all__ = ["Connect", "Prover"]

_LOOKUP_S: Final = 5.0
_CONNECT_S: Final = 10.0
_LOOKED_UP_S: Final = 30.0
"""How long a lookup counts."""
_PROVEN_S: Final = 600.0
"""How long it counts that an address is that of a name."""
_MAX_KNOWN: Final = 4096

Connect = Callable[[IncomingConnection, str | None], Awaitable[Stream]]


async def _addresses(name: str) -> frozenset[str]:
    """Raises OSError."""
    found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return frozenset(str(address[0]) for *_, address in found)


class Prover:
    """Knows which addresses are whose."""

    def __init__(
        self,
        tools: HandshakeTools,
        connect: Connect,
        *,
        lookup: Callable[[str], Awaitable[frozenset[str]]] = _addresses,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """`connect` connects to the server of a connection; raises OSError."""
        self._tools = tools
        self._connect = connect
        self._lookup = lookup
        self._proven: TTLCache[tuple[str, int, str], None] = TTLCache(_MAX_KNOWN, _PROVEN_S, clock)
        """Addresses with a port, and a name that they are known to have. Port 0 is every port."""
        self._looked_up: TTLCache[str, None] = TTLCache(_MAX_KNOWN, _LOOKED_UP_S, clock)
        """Names that need not be looked up again."""

    async def is_host(self, connection: IncomingConnection, name: str, *, by_tls: bool) -> bool:
        """Whether the destination of a connection is a host of this name. `by_tls`: it may show a
        certificate."""
        destination, name = connection.destination, name.lower().rstrip(".")
        if self._is_known(destination, name):
            return True
        if await self._is_looked_up(destination, name):
            self._proven[destination.ip, 0, name] = None
            return True
        if by_tls and await self._is_certified(connection, name):
            self._proven[destination.ip, destination.port, name] = None
            return True
        return False

    def _is_known(self, destination: Address, name: str) -> bool:
        return any((destination.ip, port, name) in self._proven for port in (0, destination.port))

    async def _is_looked_up(self, destination: Address, name: str) -> bool:
        """Ask the resolvers of this host, unless they were asked just now."""
        if name in self._looked_up:
            return False
        found: frozenset[str] = frozenset()
        with trio.move_on_after(_LOOKUP_S):
            try:
                found = await self._lookup(name)
            except (OSError, UnicodeError):
                return False
        for each in found:
            self._proven[each.partition("%")[0], 0, name] = None
        self._looked_up[name] = None
        return any(_is_same(each, destination.ip) for each in found)

    async def _is_certified(self, connection: IncomingConnection, name: str) -> bool:
        try:
            with fail_after(_CONNECT_S):
                stream = await self._connect(connection, name)
                try:
                    await connect_tls(self._tools, stream, name, ())
                finally:
                    stream.close()
        except (OSError, UnicodeError, trio.TooSlowError):
            return False
        return True


def _is_same(one: str, other: str) -> bool:
    return ipaddress.ip_address(one.partition("%")[0]) == ipaddress.ip_address(other)
