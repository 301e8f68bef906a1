"""Connections to servers through other proxies.

What layers get is the far end of the tunnel: the TCP connection to the first proxy, after the
proxies have said that what follows is the server's; or a TLS stream over it, for https proxies.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from socket import SOCK_STREAM
from typing import Final

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.layers.editing.elsewhere import connect_tls
from mitml4.layers.handshake import HandshakeTools
from mitml4.net.dial import EXHAUSTED
from mitml4.net.stream import Stream
from mitml4.net.tcp import TcpStream
from mitml4.protocols.policy import Target
from mitml4.session.destinations.hosts import ascii_form, readings
from mitml4.session.destinations.routes import Chain, Routes
from mitml4.tasks import fail_after
from mitml4.via.asking import Destination, ask, refusal
from mitml4.via.proxy import Proxy

__all__ = ["Tunnels"]

_ANSWER_S: Final = 25.0
"""How long proxies may take together; a flow waits for its server a little longer."""

Dial = Callable[[Address], Awaitable[TcpStream]]


@dataclass(slots=True)
class Tunnels:
    """Decides by the routes of a session, and connects."""

    routes: Routes
    tools: HandshakeTools
    """For TLS to https proxies."""

    async def through(self, destination: Address, name: str | None) -> Chain:
        """The proxies for a connection; none where it is to be direct."""
        ends = [Target(destination.ip, destination.port)]
        if name:
            ends.append(Target(name, destination.port))
        chain = self.routes.through(ends)
        return () if chain and await self._leads_to_proxy(destination, name) else chain

    async def _leads_to_proxy(self, destination: Address, name: str | None) -> bool:
        """Whether it is to one of the proxies itself; their names are looked up where need be."""
        if self.routes.leads_to(destination, name):
            return True
        for proxy in self.routes.nearest:
            if proxy.port == destination.port:
                with trio.move_on_after(_ANSWER_S), suppress(OSError):
                    if destination in await _addresses(proxy):
                        return True
        return False

    async def connect(
        self, chain: Chain, dial: Dial, destination: Address, name: str | None
    ) -> Stream:
        """Connect through these proxies. `dial` connects to an address directly.

        Raises the OSError that the client is to see; its text names the proxy and the reason.
        """
        name = ascii_form(name) if name else None
        last = Destination(destination.port, destination.ip, name)
        return await self._connect(chain, dial, last)

    def for_name(self, target: Target) -> Chain:
        """The proxies for a host of which only the name is known, if the last of them looks up
        names; none where it has to be looked up here, or is an address."""
        read = readings(target.host)
        if not read or any(not isinstance(each, str) for each in read):
            return ()
        chain = self.routes.through([target])
        takes_it = chain and chain[-1].takes_names and ascii_form(target.host)
        return chain if takes_it else ()

    async def connect_by_name(self, chain: Chain, dial: Dial, target: Target) -> Stream:
        """The same to a host of `for_name`."""
        return await self._connect(
            chain, dial, Destination(target.port, None, ascii_form(target.host))
        )

    async def _connect(self, chain: Chain, dial: Dial, last: Destination) -> Stream:
        at = chain[0]
        stream: Stream | None = None
        try:
            with fail_after(_ANSWER_S):
                stream = await _reach(at, dial)
                for at, following in zip(chain, (*chain[1:], None), strict=True):
                    if at.scheme == "https":
                        stream = await self._begin_tls(at, stream)
                    await ask(stream, at, await _wanted(at, following) if following else last)
        except BaseException as error:
            if stream:
                stream.abort()
            if isinstance(error, trio.TooSlowError):
                raise refusal(at, "does not answer", errno.ETIMEDOUT) from None
            raise
        return stream

    async def _begin_tls(self, proxy: Proxy, stream: Stream) -> Stream:
        try:
            return await connect_tls(self.tools, stream, proxy.host, ())
        except OSError as error:
            raise refusal(proxy, f"breaks TLS ({error.strerror})") from None


async def _reach(proxy: Proxy, dial: Dial) -> TcpStream:
    """The connection to the first proxy."""
    code, why = errno.EHOSTUNREACH, "no address"
    for address in await _addresses(proxy):
        try:
            return await dial(address)
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            code = error.errno or errno.EHOSTUNREACH
            why = os.strerror(code)
    raise refusal(proxy, f"cannot be reached ({why})", code)


async def _wanted(proxy: Proxy, following: Proxy) -> Destination:
    """What a proxy is asked for, so that the next one is reached."""
    address = None
    if not proxy.takes_names:
        address = next(iter(await _addresses(following))).ip
    return Destination(following.port, address, following.host)


async def _addresses(proxy: Proxy) -> list[Address]:
    """The addresses of a proxy, at least one. Raises OSError."""
    try:
        found = await trio.socket.getaddrinfo(proxy.host, proxy.port, type=SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "a name that cannot be looked up"
        raise refusal(proxy, f"cannot be reached ({why})", errno.EHOSTUNREACH) from None
    return [Address(str(name[0]), int(name[1])) for _, _, _, _, name in found]
