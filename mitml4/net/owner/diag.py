"""Asks the kernel for the socket of a connection: sock_diag(7).

Constants and structures: linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from typing import Final, NamedTuple

from mitml4.address import Address
from mitml4.net.netlink import messages, receive_answers
from mitml4.net.place import HERE, Place

__all__ = [
    "INET_REQUEST",
    "SOCK_DIAG_BY_FAMILY",
    "Owned",
    "open_diag",
    "owned",
]

_NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
INET_REQUEST: Final = struct.Struct("=BBBxI48s")
"""struct inet_diag_req_v2"""

_MESSAGE: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_NLM_F_REQUEST: Final = 1
_NLMSG_ERROR: Final = 2
_ID: Final = struct.Struct("!HH16s16s")  # the start of struct inet_diag_sockid
_ANY_INTERFACE_AND_COOKIE: Final = bytes(4) + b"\xff" * 8  # INET_DIAG_NOCOOKIE
_FOUND: Final = struct.Struct("=BBxx2s2s44sIIIII")  # struct inet_diag_msg
_ERROR_CODE: Final = struct.Struct("=i")  # struct nlmsgerr
_OPEN: Final = (1, 2)  # TCP_ESTABLISHED, TCP_SYN_SENT: include/net/tcp_states.h


class Owned(NamedTuple):
    """A socket, as /proc knows it, and the user who has created it."""

    inode: int
    uid: int


def open_diag(place: Place = HERE) -> socket.socket:
    """A socket for questions about a network namespace. Raises OSError."""
    return place.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)


def owned(diag: socket.socket, client: Address, destination: Address) -> Owned | None:
    """The socket of the client of a connection, while that is open. The kernel answers at once.
    Raises OSError."""
    v6 = client.is_v6
    known_by = (
        _ID.pack(client.port, destination.port, _packed(client.ip), _packed(destination.ip))
        + _ANY_INTERFACE_AND_COOKIE
    )
    family = socket.AF_INET6 if v6 else socket.AF_INET
    body = INET_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, known_by)
    head = _MESSAGE.pack(_MESSAGE.size + len(body), SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    diag.send(head + body)
    for kind, answer in messages(receive_answers(diag)):
        if kind == _NLMSG_ERROR:
            code = -_ERROR_CODE.unpack_from(answer)[0]
            if code == errno.ENOENT:
                return None
            raise OSError(code, os.strerror(code))
        _, state, *_, uid, inode = _FOUND.unpack_from(answer)
        # Where there is none, the kernel names the socket that listens at the client's port.
        return Owned(inode, uid) if state in _OPEN and inode else None
    return None


def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip.partition("%")[0]).packed.ljust(16, b"\0")
