"""Where intercepted connections arrive, and where they meant to go.

A listener serves IPv4 and IPv6 on one port. Through TPROXY the accepted socket's own name is the
original destination; after a redirect conntrack knows it. A connection that was sent by neither
came to the listener itself: it is not ours, and ends at once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import trio

from mitml4.address import Address
from mitml4.errors import MachineError
from mitml4.net.egress import EXHAUSTED, abort, be_transparent
from mitml4.net.mechanism import Mechanism
from mitml4.net.resets import until_reset

__all__ = ["Accepted", "Arrival", "Listener", "listen"]

SocketName: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST is 80 too
_SOCKADDR_IN: Final = struct.Struct("!2xH4s8x")
_SOCKADDR_IN6: Final = struct.Struct("!2xH4x16s4x")

# The kernel cuts it down to net.core.somaxconn.
_BACKLOG: Final = 65535

# Out of memory, the connection stays in the backlog, and accepting again at once would spin.
# (trio's serve_listeners does the same.)
_PAUSE_S: Final = 0.1
_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)

_AT_ONCE: Final = 32
"""So many may be accepted before others get their turn."""


class Arrival(Protocol):
    """A connection that was on its way from `client` to `destination`, and wants to come in."""

    @property
    def client(self) -> Address: ...
    @property
    def destination(self) -> Address: ...
    @property
    def interface(self) -> str: ...

    async def accept(self) -> trio.socket.SocketType:
        """Its socket, which the receiver closes. Raises OSError if the client has gone."""

    def until_reset(self) -> AbstractContextManager[trio.CancelScope]:
        """What is inside is cancelled once the client has reset it, accepted or not."""

    def refuse(self, reason: OSError | None) -> None:
        """Turn it away, as the server's side did; None: with a RST."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An arrival that the kernel has let in already: to refuse it is to reset it."""

    socket: trio.socket.SocketType
    client: Address
    destination: Address
    interface: str

    async def accept(self) -> trio.socket.SocketType:
        """The socket, at once; no checkpoint."""
        return self.socket

    def until_reset(self) -> AbstractContextManager[trio.CancelScope]:
        return until_reset(self.socket.fileno())

    def refuse(self, reason: OSError | None) -> None:
        abort(self.socket)


class Listener:
    """Accepts what one mechanism hands over for one interface."""

    def __init__(
        self, interface: str, mechanism: Mechanism, sock: socket.socket | None = None
    ) -> None:
        """Listen on a free port, or with a socket that listens already (in another namespace).

        Raises MachineError where the kernel refuses.
        """
        self.interface = interface
        self.mechanism: Mechanism = mechanism
        try:
            sock = sock or listen(transparent=mechanism == "tproxy")
        except PermissionError as error:
            raise MachineError(
                "intercepting needs CAP_NET_ADMIN", hint="run as root: sudo mitml4 …"
            ) from error
        except OSError as error:
            raise MachineError(f"cannot listen: {error.strerror}") from error
        self.address = Address.of(sock.getsockname())
        self._backlog = sock
        self._in_a_row = 0
        self._spare = _spare_descriptor()
        self._socket = trio.socket.from_stdlib_socket(sock)

    async def accept(self) -> Accepted:
        """The next intercepted connection; no single bad one is ever raised.

        Raises trio.ClosedResourceError once the listener is closed. Checkpoints every so often.
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
            accepted = self._identify(sock, peer)
            if accepted is not None:
                return accepted
            abort(sock)

    async def _next(self) -> tuple[trio.socket.SocketType, SocketName]:
        """A connection, at once if one waits: were every flow to have its turn between two of a
        crowd, the first would be served long before the last is heard."""
        if self._in_a_row < _AT_ONCE:
            with suppress(BlockingIOError):
                sock, peer = self._backlog.accept()
                self._in_a_row += 1
                return trio.socket.from_stdlib_socket(sock), peer
        self._in_a_row = 0
        return await self._socket.accept()

    def _refuse_next(self, error: OSError) -> bool:
        """Reset who waits longest, with the descriptor that is kept for this, if there is none
        left to accept with: whether that has helped anybody."""
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

    async def waiting(self) -> list[Accepted]:
        """The intercepted connections that wait in the backlog now. Checkpoints every so often."""
        found: list[Accepted] = []
        while True:
            if len(found) % _AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            try:
                sock, peer = self._backlog.accept()
            except ConnectionAbortedError:
                continue
            except OSError:  # there is none, or no descriptor for it
                return found
            accepted = self._identify(trio.socket.from_stdlib_socket(sock), peer)
            if accepted is None:
                abort(sock)
            else:
                found.append(accepted)

    def close(self) -> None:
        """Stop accepting; what waits in the backlog is reset."""
        self._socket.close()
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _identify(self, sock: trio.socket.SocketType, peer: SocketName) -> Accepted | None:
        try:
            client = Address.of(peer)  # one that was reset has no name to be asked for any more
            own = Address.of(sock.getsockname())
            destination = own if self.mechanism == "tproxy" else _before_redirect(sock, own)
            if destination.port == self.address.port and _is_own(destination, own):
                return None
        except OSError:  # it is gone already, conntrack never knew it, or no descriptor is left
            return None
        return Accepted(sock, client, destination, self.interface)


def _spare_descriptor() -> int | None:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _before_redirect(sock: trio.socket.SocketType, own: Address) -> Address:
    if own.is_v6:
        name = sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
        port, ip = _SOCKADDR_IN6.unpack(name)
        return Address(socket.inet_ntop(socket.AF_INET6, ip), port)
    name = sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
    port, ip = _SOCKADDR_IN.unpack(name)
    return Address(socket.inet_ntop(socket.AF_INET, ip), port)


def _is_own(destination: Address, own: Address) -> bool:
    """Whether a destination with the listener's port is the listener, not a server with that port.

    After a redirect, `own` is an address of this host in any case; TPROXY keeps the server's.
    """
    if destination != own:
        return False
    with socket.socket(socket.AF_INET6 if own.is_v6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((own.ip, 0))
        except OSError:
            return False
    return True


def listen(*, transparent: bool) -> socket.socket:
    """A socket that listens for IPv4 and IPv6 on a free port of all addresses. Raises OSError."""
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    except OSError:  # a kernel without IPv6
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Inherited by what is accepted, which has the server's port for its own: else a server here
        # could not bind that port before the last such connection's TIME_WAIT has ended.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if transparent:
            be_transparent(sock)
        sock.bind(("", 0))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
