"""Entries in the kernel's connection tracking that we add before the first packet of a connection.

The kernel then handles the connection as the entry says, whatever rules exist for new connections:
it translates the addresses and sets the mark. linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, TypeAlias

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.netlink import (
    NESTED,
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_EXCL,
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
        asked = _tuple(_ORIGINAL, family, _packed(family, source), _packed(family, destination))
        request(self._socket, _DELETE, nfnetlink_head(family) + asked)

    def close(self) -> None:
        self._socket.close()


def _message(entry: Entry) -> bytes:
    family = _family(entry.source)
    source, destination = _packed(family, entry.source), _packed(family, entry.destination)
    parts = [
        nfnetlink_head(family),
        _tuple(_ORIGINAL, family, source, destination),
        _tuple(_REPLY, family, destination, source),
        _NUMBERS.pack(
            *(8, _TIMEOUT, entry.lasts_s.to_bytes(4, "big")),
            *(8, _MARK, entry.mark.to_bytes(4, "big")),
        ),
    ]
    if entry.becomes_source or entry.becomes_destination:
        # Always both: the kernel would choose another port for one that is not given.
        becomes = entry.becomes_source, entry.becomes_destination
        source = _packed(family, becomes[0]) if becomes[0] else source
        destination = _packed(family, becomes[1]) if becomes[1] else destination
        parts.append(_translation(_NAT_SOURCE, family, source))
        parts.append(_translation(_NAT_DESTINATION, family, destination))
    return b"".join(parts)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.is_v6 else socket.AF_INET


_Packed: TypeAlias = tuple[bytes, bytes]
"""The address and the port, as in a packet."""


def _packed(family: socket.AddressFamily, address: Address) -> _Packed:
    return socket.inet_pton(family, address.ip), address.port.to_bytes(2, "big")


# Each attribute is its length (without padding), its type, and its value; a flow has one message.
_BYTES: Final = {socket.AF_INET: 4, socket.AF_INET6: 16}
_NUMBERS: Final = struct.Struct("=HH4sHH4s")
_TUPLES: Final = {
    family: struct.Struct(f"=HHHHHH{size}sHH{size}sHHHHB3xHH2s2xHH2s2x")
    for family, size in _BYTES.items()
}
_TRANSLATIONS: Final = {
    family: struct.Struct(f"=HHHH{size}sHHHH2s2xHH2s2x") for family, size in _BYTES.items()
}


def _tuple(kind: int, family: socket.AddressFamily, source: _Packed, target: _Packed) -> bytes:
    of_address = 4 + _BYTES[family]
    form = _TUPLES[family]
    return form.pack(
        *(form.size, kind | NESTED),
        *(4 + 2 * of_address, _IP | NESTED),
        *(of_address, _IP_SOURCE[family], source[0]),
        *(of_address, _IP_DESTINATION[family], target[0]),
        *(28, _PROTOCOL | NESTED),
        *(5, _NUMBER, socket.IPPROTO_TCP),
        *(6, _SOURCE_PORT, source[1]),
        *(6, _DESTINATION_PORT, target[1]),
    )


def _translation(kind: int, family: socket.AddressFamily, becomes: _Packed) -> bytes:
    form = _TRANSLATIONS[family]
    return form.pack(
        *(form.size, kind | NESTED),
        *(4 + _BYTES[family], _NAT_IP[family], becomes[0]),
        *(20, _NAT_PORTS | NESTED),
        *(6, _FIRST_PORT, becomes[1]),
        *(6, _LAST_PORT, becomes[1]),
    )
