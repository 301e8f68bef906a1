"""Connections to the original destinations, marked so that no session intercepts them again."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from mitml4.address import Address
from mitml4.net.place import HERE, Place
from mitml4.net.tcp import prepare

__all__ = [
    "EXHAUSTED",
    "SourceAddresses",
    "abort",
    "connect",
    "set_ip_transparent",
    "source_towards",
]

# Not in Python's socket module: linux/in6.h, linux/in.h.
_IPV6_TRANSPARENT: Final = 75
_IP_BIND_ADDRESS_NO_PORT: Final = 24

EXHAUSTED: Final = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
    errno.EADDRNOTAVAIL,
}
"""Errors that concern this machine, not the server: no descriptor, memory, or port left."""

_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
_KNOWN_S: Final = 0.1
_MAX_KNOWN: Final = 1024


async def connect(
    destination: Address,
    *,
    mark: int | None = None,
    source: Address | None = None,
    unconnected: socket.socket | None = None,
    place: Place = HERE,
    bound: Callable[[socket.socket], None] | None = None,
) -> socket.socket:
    """Connect to `destination`; the caller closes the socket, which does not block and is prepared
    for a TcpStream, and sets the deadline.

    `mark` is the session's own mark (SO_MARK: needs CAP_NET_ADMIN). The connection uses the IP of
    `source`, with a port that the kernel picks. `unconnected` is a socket with which to connect, by
    default a new one of `place`. `bound` is called with the socket before it connects, when it has
    its local address and port. Raises the kernel's OSError (ECONNREFUSED, EHOSTUNREACH,
    ENETUNREACH, ETIMEDOUT, …). Checkpoints.
    """
    family = socket.AF_INET6 if destination.is_v6 else socket.AF_INET
    sock = unconnected or place.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        prepare(sock)
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if source is not None:
            # The kernel then picks the port at connect, where it need only be unused towards this
            # server.
            sock.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source.ip, 0))
        if bound is not None:
            sock.bind((source_towards(destination, mark, place), 0))
            bound(sock)
        _check(sock.connect_ex((destination.ip, destination.port)))
        await trio.lowlevel.wait_writable(sock)
        _check(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except BaseException:
        sock.close()
        raise
    return sock


def _check(code: int) -> None:
    if code not in (0, errno.EINPROGRESS):
        raise OSError(code, os.strerror(code))


def source_towards(destination: Address, mark: int | None = None, place: Place = HERE) -> str:
    """The local address that a connection would use. Nothing is sent. Raises OSError."""
    family = socket.AF_INET6 if destination.is_v6 else socket.AF_INET
    with place.socket(family, socket.SOCK_DGRAM) as sock:
        if mark is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        sock.connect((destination.ip, destination.port))
        address: str = sock.getsockname()[0]
    return address


class SourceAddresses:
    """`source_towards`, remembered for a moment: connections of a client come in bursts."""

    def __init__(self, place: Place, clock: Callable[[], float] = time.monotonic) -> None:
        self._place = place
        self._clock = clock
        self._known: dict[str, tuple[float, str]] = {}
        """Until when, and the address, by the destination's IP."""

    def towards(self, destination: Address) -> str:
        """See `source_towards`."""
        now = self._clock()
        until, source = self._known.get(destination.ip, (now, ""))
        if now >= until:
            source = source_towards(destination, place=self._place)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[destination.ip] = now + _KNOWN_S, source
        return source


def abort(sock: socket.socket) -> None:
    """Close with a RST: the other side sees a reset or a refusal, not an orderly end. Raises
    nothing."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()


def set_ip_transparent(sock: socket.socket) -> None:
    """Let a socket use addresses that are not this host's. Needs CAP_NET_ADMIN or CAP_NET_RAW."""
    sock.setsockopt(socket.SOL_IP, socket.IP_TRANSPARENT, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
