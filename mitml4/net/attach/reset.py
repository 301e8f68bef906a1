"""Ends connections that are open in a network namespace: sock_diag(7), SOCK_DESTROY.

Both ends get a reset. Connections of clients to servers inside are left alone: their local port is
one on which somebody listens.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.netlink import dump, request
from mitml4.net.owner.diag import INET_REQUEST, SOCK_DIAG_BY_FAMILY, open_diag
from mitml4.net.place import Place
from mitml4.net.rules.scope import Scope

__all__ = ["reset_open_connections"]

_DESTROY: Final = 21  # linux/sock_diag.h
_MESSAGE: Final = struct.Struct("=BBxx48s")  # the start of struct inet_diag_msg
_SOCKET: Final = struct.Struct("!HH16s16s")  # the start of struct inet_diag_sockid

# include/net/tcp_states.h
_ESTABLISHED, _SYN_SENT, _CLOSE_WAIT, _LISTEN = 1, 2, 8, 10
_OPEN: Final = 1 << _ESTABLISHED | 1 << _SYN_SENT | 1 << _CLOSE_WAIT


@dataclass(frozen=True, slots=True)
class _Found:
    """A TCP socket: its addresses, and what the kernel knows it by."""

    family: int
    own: Address
    peer: Address
    known_by: bytes


def reset_open_connections(place: Place, scope: Scope) -> int:
    """Reset the connections in scope that programs in a network namespace have opened to others.
    Returns their number.

    Raises MachineError if the kernel cannot.
    """
    try:
        with open_diag(place) as sock:
            served = {found.own.port for found in _sockets(sock, 1 << _LISTEN)}
            asked = [
                found
                for found in _sockets(sock, _OPEN)
                if found.own.port not in served and _is_in(scope, found)
            ]
            return sum(_reset(sock, each) for each in asked)
    except OSError as error:
        raise MachineError(
            f"--reset-existing: the kernel cannot end connections: {error.strerror}",
            hint="leave out --reset-existing; it needs CONFIG_INET_DIAG_DESTROY",
        ) from error


def _sockets(sock: socket.socket, states: int) -> Iterator[_Found]:
    for family in (socket.AF_INET, socket.AF_INET6):
        asked = INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, states, bytes(48))
        for body in list(dump(sock, SOCK_DIAG_BY_FAMILY, asked)):
            of, _, known_by = _MESSAGE.unpack_from(body)
            own_port, port, own, peer = _SOCKET.unpack_from(known_by)
            yield _Found(
                of, Address(_ip(of, own), own_port), Address(_ip(of, peer), port), known_by
            )


def _ip(family: int, packed: bytes) -> str:
    """An IPv4 address also where it is mapped into IPv6."""
    if family == socket.AF_INET:
        return socket.inet_ntop(family, packed[:4])
    found = ipaddress.IPv6Address(packed)
    return str(found.ipv4_mapped or found)


def _is_in(scope: Scope, found: _Found) -> bool:
    """`from` is checked too; connections of other hosts have no socket here."""
    own, peer = ipaddress.ip_address(found.own.ip), ipaddress.ip_address(found.peer.ip)
    if peer.is_loopback or own == peer or not scope.local:
        return False
    if not scope.covers_port(found.peer.port):
        return False
    return all(
        not networks or any(address in network for network in networks)
        for networks, address in ((scope.to, peer), (scope.from_, own))
    )


def _reset(sock: socket.socket, found: _Found) -> bool:
    """Returns whether it was still open."""
    body = INET_REQUEST.pack(found.family, socket.IPPROTO_TCP, 0, 0, found.known_by)
    with suppress(FileNotFoundError):
        request(sock, _DESTROY, body)
        return True
    return False
