"""Packets that an nft rule with `log group N` copies to us.

linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.net.netlink import (
    NETLINK_NETFILTER,
    attribute,
    attributes,
    messages,
    nfnetlink_head,
    request,
)
from mitml4.net.place import HERE, Place

__all__ = ["LoggedPacket", "logged_packets", "open_log"]

_ULOG: Final = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = _ULOG | 0, _ULOG | 1

_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_BIND: Final = b"\x01"
_COPY_PACKET: Final = 2

_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_BUFFER_BYTES: Final = 8 << 20
"""Room for some thousand packets. Clients retransmit a SYN that does not fit, but only after one
second or longer."""

_MARK, _INDEV, _OUTDEV, _PAYLOAD, _PREFIX = 2, 4, 5, 9, 10


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """A packet, with the metadata of the rule that logged it."""

    payload: bytes
    """From the IP header on."""
    prefix: bytes = b""
    mark: int = 0
    entered_by: int | None = None
    """The index of the interface; None for packets of this host."""
    leaves_by: int | None = None


def open_log(group: int, *, copy_bytes: int, place: Place = HERE) -> socket.socket:
    """A socket on which the packets of a group arrive at once, cut after so many bytes.

    Needs CAP_NET_ADMIN in the network namespace. Raises OSError.
    """
    sock = place.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)  # to rmem_max at most
        with suppress(PermissionError):  # in the namespace of a user
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        sock.bind((0, 0))
        mode = struct.pack("!IBx", copy_bytes, _COPY_PACKET)
        at_once = struct.pack("!I", 1)
        for kind, value in ((_CFG_CMD, _BIND), (_CFG_MODE, mode), (_CFG_QTHRESH, at_once)):
            body = nfnetlink_head(socket.AF_UNSPEC, group) + attribute(kind, value)
            request(sock, _CONFIG, body)
    except BaseException:
        sock.close()
        raise
    return sock


def logged_packets(data: bytes) -> Iterator[LoggedPacket]:
    """The packets in data that was read from the socket."""
    for kind, body in messages(data):
        if kind != _PACKET:
            continue
        found = dict(attributes(body))
        if _PAYLOAD in found:
            yield LoggedPacket(
                found[_PAYLOAD],
                found.get(_PREFIX, b"").rstrip(b"\0"),
                int.from_bytes(found.get(_MARK, b"")),
                _index(found.get(_INDEV)),
                _index(found.get(_OUTDEV)),
            )


def _index(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value)
