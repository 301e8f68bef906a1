"""The listener to which intercepted connections are delivered.

A listener serves IPv4 and IPv6 on one port. The gate (net/gate) decides which connections reach it,
and knows their original destinations.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeAlias

import trio

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import MachineError, limit_hint
from mitml4.net.dial import EXHAUSTED, abort, set_ip_transparent
from mitml4.net.place import HERE, Place
from mitml4.net.stream import Transport
from mitml4.net.tcp import prepare

__all__ = [
    "Accepted",
    "Arrived",
    "Ends",
    "HeldConnection",
    "IncomingConnection",
    "Listener",
    "listen",
]

Ends: TypeAlias = tuple[Address, Address]
"""The addresses of a connection: its source, and its destination."""
Arrived: TypeAlias = Callable[[socket.socket | None], None]
"""Gets the socket of a connection that was accepted; None: its client has gone."""
SocketName: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

# The kernel limits it to net.core.somaxconn.
_BACKLOG: Final = 65535

# When memory is exhausted, the connection stays in the backlog, and accepting again at once would
# spin. (trio's serve_listeners does the same.)
_PAUSE_S: Final = 0.1
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)

_AT_ONCE: Final = 32
"""The number of connections that are accepted before other tasks run."""
_MOST_ARRIVED: Final = 1024
"""The same where somebody has to know now who has arrived."""


class IncomingConnection(Protocol):
    """A connection from `client` to `destination` that waits to be accepted."""

    @property
    def client(self) -> Address: ...
    @property
    def destination(self) -> Address: ...
    @property
    def asked(self) -> Address:
        """What the client has connected to, which others may have translated."""

    @property
    def source(self) -> Address:
        """The source address that the server would see without us: the client's, or its
        translation."""

    @property
    def interface(self) -> str: ...
    @property
    def local_ends(self) -> Ends | None:
        """The addresses of the client's socket, if that is in the network namespace of the source:
        its destination may have been translated since. None: it is elsewhere."""

    async def accept(self) -> Transport:
        """Its socket, which the caller closes. Raises OSError if the client has gone."""

    def refuse(self, reason: OSError | None) -> None:
        """Refuse it with the error of the server's side; None: with a RST."""


class HeldConnection(IncomingConnection, Protocol):
    """One that the kernel accepts when it is let in."""

    def let_in(self, arrived: Arrived) -> None:
        """Accept it. `arrived` is called once, unless it is refused before."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that the kernel has accepted: its socket, and its two addresses there."""

    socket: socket.socket
    peer: Address
    own: Address


class Listener:
    """Accepts connections on one port."""

    def __init__(self, sock: socket.socket | None = None, *, place: Place = HERE) -> None:
        """Listen on a free port, or use a socket that listens already (in another namespace).

        Raises MachineError if the kernel refuses.
        """
        try:
            sock = sock or listen(place=place)
        except OSError as error:
            hint = limit_hint(error, "mitml4 doctor")
            raise MachineError(f"cannot listen: {error.strerror}", hint=hint) from error
        self.address = Address.of(sock.getsockname())
        self._backlog = sock
        self._in_a_row = 0
        self._spare = _spare_descriptor()
        sock.setblocking(False)
        prepare(sock)

    async def accept(self) -> Accepted:
        """The next connection; an error of a single connection is never raised.

        Raises trio.ClosedResourceError after the listener is closed. Checkpoints every so often.
        """
        while True:
            try:
                sock, peer = await self._next()
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise trio.ClosedResourceError from error
                if not self._refuse_next(error) and error.errno in EXHAUSTED:
                    await trio.sleep(_PAUSE_S)
                await trio.lowlevel.checkpoint()
                continue
            if accepted := _known(sock, peer):
                return accepted

    def arrived(self) -> Iterator[Accepted]:
        """Those that wait already, as far as there are descriptors for them."""
        for _ in range(_MOST_ARRIVED):
            try:
                accepted = _known(*self._backlog.accept())
            except OSError:
                return
            if accepted:
                yield accepted

    async def _next(self) -> tuple[socket.socket, SocketName]:
        """A connection, at once if one waits: if every flow had its turn between two accepts, the
        last of a burst would wait long."""
        if self._in_a_row == _AT_ONCE:
            self._in_a_row = 0
            await trio.lowlevel.checkpoint()
        while True:
            try:
                accepted: tuple[socket.socket, SocketName] = self._backlog.accept()
            except BlockingIOError:
                self._in_a_row = 0
                await trio.lowlevel.wait_readable(self._backlog)
            else:
                self._in_a_row += 1
                return accepted

    def _refuse_next(self, error: OSError) -> bool:
        """If no descriptor is left to accept with, reset the connection that has waited longest,
        with the reserve descriptor. Returns whether that freed a place."""
        if error.errno not in _NO_DESCRIPTOR or self._spare is None:
            return False
        os.close(self._spare)
        try:
            sock, _ = self._backlog.accept()
        except OSError:
            return False
        else:
            abort(sock)
            return True
        finally:
            self._spare = _spare_descriptor()

    def close(self) -> None:
        """Stop accepting; connections in the backlog are reset."""
        trio.lowlevel.notify_closing(self._backlog)
        self._backlog.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


def _known(sock: socket.socket, peer: SocketName) -> Accepted | None:
    """None: it was reset, and has no address any more."""
    try:
        return Accepted(sock, Address.of(peer), Address.of(sock.getsockname()))
    except OSError:
        abort(sock)
        return None


def _spare_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def listen(*, transparent: bool = False, place: Place = HERE) -> socket.socket:
    """A socket that listens for IPv4 and IPv6 on a free port of all addresses. Raises OSError."""
    try:
        sock = place.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    except OSError:  # a kernel without IPv6
        sock = place.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Accepted sockets inherit it. They use the server's port: without it, a server on this host
        # could not bind that port until the last TIME_WAIT has ended.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if transparent:
            set_ip_transparent(sock)
        sock.bind(("", 0))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
