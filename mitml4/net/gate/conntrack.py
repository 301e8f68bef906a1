"""Entries in the kernel's connection tracking: those that we add before the first packet of a
connection, and those that are there.

The kernel handles a connection as its entry says, whatever rules exist for new connections: it
translates the addresses and sets the mark. linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.netlink import (
    NESTED,
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    NLM_F_EXCL,
    ask,
    attribute,
    attributes,
    dump,
    nfnetlink_head,
    request,
)
from mitml4.net.place import HERE, Place

__all__ = ["Conntrack", "Entry", "FoundEntry"]

_NEW: Final = 1 << 8  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW
_GET: Final = _NEW | 1  # IPCTNL_MSG_CT_GET
_GET_STATISTICS: Final = _NEW | 5  # IPCTNL_MSG_CT_GET_STATS
_DELETE: Final = _NEW | 2  # IPCTNL_MSG_CT_DELETE

_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
_STATUS, _NAT_SOURCE, _TIMEOUT, _MARK, _ID, _NAT_DESTINATION, _ZONE = 3, 6, 7, 8, 12, 13, 18
_IP, _PROTOCOL, _TUPLE_ZONE = 1, 2, 3  # of a tuple
_IP_SOURCE = {socket.AF_INET: 1, socket.AF_INET6: 3}
_IP_DESTINATION = {socket.AF_INET: 2, socket.AF_INET6: 4}
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # of a tuple's protocol
_NAT_IP = {socket.AF_INET: 1, socket.AF_INET6: 4}
_NAT_PORTS, _FIRST_PORT, _LAST_PORT = 3, 1, 2
_TCP: Final = bytes([socket.IPPROTO_TCP])
_COUNT: Final = 1  # CTA_STATS_GLOBAL_ENTRIES
_IS_TRANSLATED: Final = 1 << 4 | 1 << 5 | 1 << 6  # IPS_SRC_NAT, IPS_DST_NAT, IPS_SEQ_ADJUST


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundEntry:
    """A TCP connection that is there."""

    family: int
    key: bytes
    """What the kernel finds this entry by, and no later one with the same addresses."""
    mark: int
    is_translated: bool
    """Its addresses, or its sequence numbers (as with `synproxy`)."""


class Conntrack:
    """The connection tracking of a network namespace."""

    def __init__(self, place: Place = HERE) -> None:
        """Raises OSError."""
        self._socket = place.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    def add(self, entry: Entry) -> None:
        """Raises FileExistsError if the connection, or its replies, would have the same addresses
        as an existing one; otherwise the kernel's OSError."""
        request(self._socket, _NEW, _message(entry), NLM_F_CREATE | NLM_F_EXCL)

    def remove(
        self, source: Address, destination: Address, protocol: int = socket.IPPROTO_TCP
    ) -> None:
        """Remove the entry of a connection. Raises FileNotFoundError if there is none; otherwise
        the kernel's OSError."""
        self._remove(_ORIGINAL, source, destination, protocol)

    def remove_answered(self, source: Address, destination: Address) -> None:
        """The same for the TCP connection whose answers have these ends."""
        self._remove(_REPLY, source, destination, socket.IPPROTO_TCP)

    def _remove(self, kind: int, source: Address, destination: Address, protocol: int) -> None:
        family = _family(source)
        ends = _packed(family, source), _packed(family, destination)
        asked = _tuple(kind, family, *ends, protocol)
        request(self._socket, _DELETE, nfnetlink_head(family) + asked)

    def count(self) -> int:
        """The number of entries, of all protocols. Raises the kernel's OSError."""
        answer = ask(self._socket, _GET_STATISTICS, nfnetlink_head(socket.AF_UNSPEC))
        return int.from_bytes(dict(attributes(answer)).get(_COUNT, b""), "big")

    def entries(self) -> Iterator[FoundEntry]:
        """The TCP connections in zone 0. If not all are taken, the next request would read the
        rest: close this then. Raises the kernel's OSError."""
        for body in dump(self._socket, _GET, nfnetlink_head(socket.AF_UNSPEC)):
            if found := _found(body):
                yield found

    def remove_found(self, entry: FoundEntry) -> None:
        """The same for one of these."""
        request(self._socket, _DELETE, entry.key)

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


def _found(body: bytes) -> FoundEntry | None:
    """What a message says. None: it is in another zone, or not TCP."""
    values = dict(attributes(body))
    original = values.get(_ORIGINAL, b"")
    parts = dict(attributes(original, skip=0))
    protocol = dict(attributes(parts.get(_PROTOCOL, b""), skip=0)).get(_NUMBER)
    if protocol != _TCP or _ZONE in values or _TUPLE_ZONE in parts or _ID not in values:
        return None
    family = body[0]  # of struct nfgenmsg
    return FoundEntry(
        family=family,
        key=b"".join(
            (
                nfnetlink_head(family),
                attribute(_ORIGINAL | NESTED, original),
                attribute(_ID, values[_ID]),
            )
        ),
        mark=int.from_bytes(values.get(_MARK, b""), "big"),
        is_translated=bool(int.from_bytes(values.get(_STATUS, b""), "big") & _IS_TRANSLATED),
    )


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


def _tuple(
    kind: int,
    family: socket.AddressFamily,
    source: _Packed,
    target: _Packed,
    protocol: int = socket.IPPROTO_TCP,
) -> bytes:
    of_address = 4 + _BYTES[family]
    form = _TUPLES[family]
    return form.pack(
        *(form.size, kind | NESTED),
        *(4 + 2 * of_address, _IP | NESTED),
        *(of_address, _IP_SOURCE[family], source[0]),
        *(of_address, _IP_DESTINATION[family], target[0]),
        *(28, _PROTOCOL | NESTED),
        *(5, _NUMBER, protocol),
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
