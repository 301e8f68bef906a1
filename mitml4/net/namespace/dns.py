"""The resolver of a command's namespace: it forwards every query to the host's resolvers.

A query arrives here whichever server it was for, and gets the host's answer: split horizon, a VPN's
names, and 127.0.0.53 of systemd-resolved all work. The addresses in the answers are remembered, so
that a flow can be shown with the name that was looked up. With `--allow`, other names are refused,
and nobody is asked for them; of a query for an allowed one, only the question goes on.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import Any, Final

import trio
from cachetools import FIFOCache

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.namespace.dns_message import (
    Code,
    addresses_in,
    answer_without,
    for_datagram,
    is_truncated,
    question_of,
    without_options,
)
from mitml4.tasks import fail_after

__all__ = ["DnsRelay", "Names", "Refusals", "names_by_file", "resolvers_of"]

_PORT: Final = 53
_RESOLVE_S: Final = 4.0
"""The time-out of one resolver; clients wait 5 s and ask again (resolv.conf(5))."""
_CONNECT_S: Final = 1.0
_IDLE_S: Final = 30.0
_MAX_QUERIES: Final = 512
_MAX_STREAMS: Final = 64
"""A limit of connections to the resolver; a command may open any number."""
_MAX_NAMES: Final = 8192
_MAX_NAMES_OF_ADDRESS: Final = 64
_MAX_RESOLVERS: Final = 3  # resolv.conf(5), MAXNS
_MAX_MESSAGE: Final = 65535
_DEFAULT_RESOLVER: Final = "127.0.0.1"  # resolv.conf(5)
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_HOSTS: Final = Path("/etc/hosts")

Ask = Callable[[str, int, bytes], Awaitable[bytes]]
"""(resolver, port, query) → its answer."""


@dataclass(slots=True)
class Names:
    """The names whose lookup returned an address. The least recently learned are dropped first."""

    limit: int = _MAX_NAMES
    by_file: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that need no resolver: see `names_by_file`."""
    _names: FIFOCache[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self._names = FIFOCache(self.limit)

    def learn(self, answer: bytes) -> None:
        """Remember the addresses in a resolver's answer."""
        for address, name in addresses_in(answer):
            others = (each for each in self._names.get(address, ()) if each != name)
            self._names[address] = (name, *others)[:_MAX_NAMES_OF_ADDRESS]

    def of(self, address: str) -> tuple[str, ...]:
        """What it was likely looked up by: the last name first. Which of several names in a file it
        was is not known."""
        by_file = self.by_file.get(address, ())
        return self._names.get(address) or (by_file if len(by_file) == 1 else ())

    def all_of(self, address: str) -> tuple[str, ...]:
        """All names that it may have been looked up by."""
        return (*self._names.get(address, ()), *self.by_file.get(address, ()))


@dataclass(frozen=True, slots=True)
class Refusals:
    """Which names may be asked for, and who hears of the others."""

    allows: Callable[[str], bool]
    refused: Callable[[Address, str | None], None]
    """Told of the client, and of the name if there is one."""


def names_by_file(path: Path = _HOSTS) -> dict[str, tuple[str, ...]]:
    """The names of each address in a hosts file (hosts(5)). Loopback addresses are left out."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return {}
    names: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *called = line.partition("#")[0].split() or [""]
        with suppress(ValueError):
            ip = ipaddress.ip_address(address)
            if not ip.is_loopback:
                known = names.get(str(ip), ())
                names[str(ip)] = tuple(dict.fromkeys((*known, *called)))
    return names


def resolvers_of(text: str) -> list[str]:
    """The addresses in a resolv.conf; the local host's if it has none."""
    rows = [line.split() for line in text.splitlines()]
    named = [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]
    return named[:_MAX_RESOLVERS] or [_DEFAULT_RESOLVER]


class DnsRelay:
    """Serves the DNS sockets of a namespace."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        names: Names,
        note: Callable[[str], None],
        *,
        refusals: Refusals | None = None,
        resolv_conf: Path = _RESOLV_CONF,
        port: int = _PORT,
    ) -> None:
        """`note` is called once, when no resolver answers. The caller closes the sockets."""
        self._sockets = [trio.socket.from_stdlib_socket(each.dup()) for each in sockets]
        self._names = names
        self._note = note
        self._refusals = refusals
        self._resolv_conf = resolv_conf
        self._port = port
        self._noted = False
        self._limit = trio.CapacityLimiter(_MAX_QUERIES)
        self._streams = 0

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for sock in self._sockets:
                    serve = self._datagrams if sock.type == socket.SOCK_DGRAM else self._accept
                    nursery.start_soon(serve, sock, nursery)
        finally:
            for sock in self._sockets:
                sock.close()

    async def _datagrams(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                query, client = await sock.recvfrom(_MAX_MESSAGE)
            except OSError:  # an ICMP error: a client did not wait
                continue
            # above the limit a query is dropped, as a network may do
            if self._limit.available_tokens:
                nursery.start_soon(self._answer_datagram, sock, query, client)

    async def _answer_datagram(
        self, sock: trio.socket.SocketType, query: bytes, client: Any
    ) -> None:
        async with self._limit:
            answer = await self._answer(query, Address.of(client), _ask_by_datagram)
        if answer:
            try:
                await sock.sendto(answer, client)
            except OSError:  # the client has gone
                return

    async def _accept(self, sock: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        while True:
            try:
                accepted, _ = await sock.accept()
            except OSError:
                await trio.sleep(0.1)
                continue
            if self._streams < _MAX_STREAMS:
                self._streams += 1
                nursery.start_soon(self._carry_stream, trio.SocketStream(accepted))
            else:
                accepted.close()

    async def _carry_stream(self, stream: trio.SocketStream) -> None:
        try:
            await self._serve_stream(stream)
        finally:
            self._streams -= 1

    async def _serve_stream(self, stream: trio.SocketStream) -> None:
        """RFC 7766: any number of queries, one after the other."""
        async with stream:
            try:
                client = Address.of(stream.socket.getpeername())
                while True:
                    with fail_after(_IDLE_S):
                        query = await _receive_message(stream)
                    async with self._limit:
                        answer = await self._answer(query, client, _ask_by_stream)
                    if answer is None:
                        return
                    await stream.send_all(struct.pack("!H", len(answer)) + answer)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, EOFError):
                return

    async def _answer(self, query: bytes, client: Address, ask: Ask) -> bytes | None:
        if refusals := self._refusals:
            question = question_of(query)
            if question is None or not refusals.allows(question.name):
                refusals.refused(client, question.name if question else None)
                return answer_without(query, Code.REFUSED)
            if question.is_binding:
                return answer_without(query, Code.NO_ERROR)
            (number,) = struct.unpack_from("!H", query)
            query = question.query(number)
        return await self._resolve(query, ask)

    async def _resolve(self, query: bytes, ask: Ask) -> bytes | None:
        """The first answer of the host's resolvers, tried in order."""
        reason = "no answer"
        for resolver in self._resolvers():
            try:
                with fail_after(_RESOLVE_S):
                    answer = await ask(resolver, self._port, query)
            except trio.TooSlowError:
                continue
            except (OSError, trio.BrokenResourceError, EOFError) as error:
                reason = getattr(error, "strerror", None) or "no answer"
                continue
            self._names.learn(answer)
            return answer
        if not self._noted:
            self._noted = True
            self._note(f"no resolver of this host answers ({reason}): see {self._resolv_conf}")
        return answer_without(query, Code.SERVER_FAILURE)

    def _resolvers(self) -> list[str]:
        """They are read each time, because the network may have changed."""
        try:
            return resolvers_of(self._resolv_conf.read_text())
        except (OSError, UnicodeDecodeError):
            return [_DEFAULT_RESOLVER]


async def _ask_by_datagram(resolver: str, port: int, query: bytes) -> bytes:
    """Raises OSError, or waits forever."""
    ((family, _, _, _, address),) = socket.getaddrinfo(
        resolver, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )
    with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
        await sock.connect(address)
        await sock.send(query)
        while True:
            answer = await sock.recv(_MAX_MESSAGE)
            if answer[:2] == query[:2]:
                return answer


async def _ask_by_stream(resolver: str, port: int, query: bytes) -> bytes:
    """Also asks resolvers that take no TCP. Raises OSError, or waits forever."""
    try:
        with fail_after(_CONNECT_S):
            stream = await trio.open_tcp_stream(resolver, port)
        async with stream:
            await stream.send_all(struct.pack("!H", len(query)) + query)
            return await _receive_message(stream)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, EOFError):
        return await _ask_by_large_datagram(resolver, port, query)


async def _ask_by_large_datagram(resolver: str, port: int, query: bytes) -> bytes:
    """Raises OSError, or waits forever."""
    answer = await _ask_by_datagram(resolver, port, for_datagram(query))
    if is_truncated(answer):
        raise OSError(errno.EMSGSIZE, "it takes no TCP, and its answer does not fit in a datagram")
    return without_options(answer, query)


async def _receive_message(stream: trio.SocketStream) -> bytes:
    """RFC 1035 §4.2.2: two bytes of length, then the message. Raises EOFError at the end."""
    (length,) = struct.unpack("!H", await _receive_exactly(stream, 2))
    return await _receive_exactly(stream, length)


async def _receive_exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        received = await stream.receive_some(count - len(data))
        if not received:
            raise EOFError
        data += received
    return data
