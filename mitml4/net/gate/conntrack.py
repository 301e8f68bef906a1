"""Entries in the kernel's connection tracking that we add before the first packet of a connection.

The kernel then handles the connection as the entry says, whatever rules exist for new connections:
it translates the addresses and sets the mark. linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    nested,
    nfnetlink_head,
    request,
)
from mitml4.net.place import HERE, Place

__all__ = ["Conntrack", "Entry"]

_NEW: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
_DELETE: Final = _NEW | 2  # IPCTNL_MSG_CT_DELETE

_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
_NAT_SOURCE, _TIMEOUT, _MARK, _NAT_DESTINATION = 6, 7, 8, 13
_IP, _PROTOCOL = 1, 2  # of a tuple
_IP_SOURCE = {socket.AF_INET: 1, socket.AF_INET6: 3}
_IP_DESTINATION = {socket.AF_INET: 2, socket.AF_INET6: 4}
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # of a tuple's protocol
_NAT_IP = {socket.AF_INET: 1, socket.AF_INET6: 4}
_NAT_PORTS, _FIRST_PORT, _LAST_PORT = 3, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A future TCP connection."""

    source: Address
    destination: Address
    mark: int
    lasts_s: int
    """Lifetime without packets; packets renew it to the usual lifetime."""
    becomes_source: Address | None = None
    becomes_destination: Address | None = None
    """The translated addresses."""


class Conntrack:
    """The connection tracking of a network namespace."""

    def __init__(self, place: Place = HERE) -> None:
        """Raises OSError."""
        self._socket = place.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    def add(self, entry: Entry) -> None:
        """Raises FileExistsError if the connection, or its replies, would have the same addresses
        as an existing one; otherwise the kernel's OSError."""
        request(self._socket, _NEW, _message(entry), NLM_F_CREATE | NLM_F_EXCL)

    def remove(self, source: Address, destination: Address) -> None:
        """Remove the entry of a connection. Raises FileNotFoundError if there is none; otherwise
        the kernel's OSError."""
        family = _family(source)
        asked = nested(_ORIGINAL, *_tuple(family, source, destination))
        request(self._socket, _DELETE, nfnetlink_head(family) + asked)

    def close(self) -> None:
        self._socket.close()


def _message(entry: Entry) -> bytes:
    family = _family(entry.source)
    parts = [
        nfnetlink_head(family),
        nested(_ORIGINAL, *_tuple(family, entry.source, entry.destination)),
        nested(_REPLY, *_tuple(family, entry.destination, entry.source)),
        attribute(_TIMEOUT, struct.pack("!I", entry.lasts_s)),
        attribute(_MARK, struct.pack("!I", entry.mark)),
    ]
    if entry.becomes_source or entry.becomes_destination:
        # Always both: the kernel would choose another port for one that is not given.
        source, destination = entry.becomes_source, entry.becomes_destination
        parts.append(_translation(_NAT_SOURCE, family, source or entry.source))
        parts.append(_translation(_NAT_DESTINATION, family, destination or entry.destination))
    return b"".join(parts)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.is_v6 else socket.AF_INET


def _tuple(family: socket.AddressFamily, source: Address, target: Address) -> tuple[bytes, bytes]:
    addresses = nested(
        _IP,
        attribute(_IP_SOURCE[family], socket.inet_pton(family, source.ip)),
        attribute(_IP_DESTINATION[family], socket.inet_pton(family, target.ip)),
    )
    ports = nested(
        _PROTOCOL,
        attribute(_NUMBER, bytes([socket.IPPROTO_TCP])),
        attribute(_SOURCE_PORT, struct.pack("!H", source.port)),
        attribute(_DESTINATION_PORT, struct.pack("!H", target.port)),
    )
    return addresses, ports


def _translation(kind: int, family: socket.AddressFamily, becomes: Address) -> bytes:
    port = struct.pack("!H", becomes.port)
    return nested(
        kind,
        attribute(_NAT_IP[family], socket.inet_pton(family, becomes.ip)),
        nested(_NAT_PORTS, attribute(_FIRST_PORT, port), attribute(_LAST_PORT, port)),
    )
