"""QUIC that is refused, so that its clients fall back to TCP, and the servers that these wanted.

The first datagram of a client's flow is dropped, and those after it are rejected: a client that
gets an error for the first one would not send the second, and the hello of a client with
post-quantum keys needs two. Both are logged (nflog.py), within a rate, and read here.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

from cachetools import FIFOCache

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.net.gate.nflog import LoggedPacket
from mitml4.protocols.conversation import Direction
from mitml4.protocols.datagram import fits
from mitml4.protocols.datagrams.quic import PROTOCOL, Quic, QuicDetails
from mitml4.protocols.parts.fields import Short

__all__ = [
    "COPY_BYTES",
    "QUIC_SETS",
    "RefusedFlows",
    "RefusedQuic",
    "log_of_quic",
    "refusal_of_quic",
]

COPY_BYTES: Final = 2048
"""Of a logged datagram: Initial packets are sent in datagrams that no path has to fragment."""

_FAMILIES: Final = (("ipv4", "ip"), ("ipv6", "ip6"))
_SEEN: Final = "size 16384; flags dynamic, timeout; timeout 1m;"
QUIC_SETS: Final = tuple(
    (f"quic_{family}", f"type {family}_addr . inet_service . {family}_addr; {_SEEN}")
    for family, _ in _FAMILIES
)
"""Names of sets and what they are: clients whose first datagram to a server was dropped."""

_LOGGED_PER_S: Final = 200


def log_of_quic(group: int) -> str:
    """The statements that log a datagram, within a rate."""
    return f"limit rate {_LOGGED_PER_S}/second burst {_LOGGED_PER_S} packets log group {group}"


def refusal_of_quic(group: int, *, dropped: bool = True) -> list[str]:
    """The rules for a datagram of QUIC that is to be refused, which is logged to this group. When
    the sets are full, the first is rejected as well. Without `dropped` the first goes on, for where
    its sender would get an error if it was dropped."""
    logged = log_of_quic(group)
    keys = [(family, f"{ip} saddr . udp sport . {ip} daddr") for family, ip in _FAMILIES]
    return [
        *(f"{key} @quic_{family} {logged}" for family, key in keys),
        *(f"{key} @quic_{family} reject" for family, key in keys),
        *(
            f"add @quic_{family} {{ {key} }} " + (f"{logged} drop" if dropped else "accept")
            for family, key in keys
        ),
        *(f"add @quic_{family} {{ {key} }} drop" for family, key in keys if dropped),
        "reject",
    ]


@dataclass(frozen=True, slots=True)
class RefusedQuic:
    """A client whose QUIC was refused; the details are those of its hello, as far as it came."""

    client: Address
    destination: Address
    details: QuicDetails


_MAX_FLOWS: Final = 1024
_HELLO_WITHIN_S: Final = 1.0


@dataclass(slots=True)
class _Flow:
    quic: Quic
    until_s: float
    """When it is told also without its hello."""
    is_told: bool = False


class RefusedFlows:
    """The clients' flows whose datagrams were logged, each told once."""

    def __init__(self) -> None:
        self._flows: FIFOCache[tuple[Address, Address], _Flow] = FIFOCache(_MAX_FLOWS)

    def take(self, packet: LoggedPacket, now_s: float) -> RefusedQuic | None:
        """A logged packet; a flow whose hello is whole with it."""
        found = _read(packet.payload)
        if found is None:
            return None
        client, destination, data = found
        flow = self._flows.get((client, destination))
        if flow is None:
            if PROTOCOL.request is None or not fits(PROTOCOL.request, data):
                return None  # something else on this port
            flow = _Flow(Quic(), now_s + _HELLO_WITHIN_S)
            self._flows[client, destination] = flow
        if flow.is_told:
            return None
        try:
            flow.quic.take(Direction.UP, data)
        except (ProtocolError, Short):
            return None
        return self._tell(client, destination, flow) if flow.quic.hello else None

    def overdue(self, now_s: float) -> Iterator[RefusedQuic]:
        """Flows whose hello did not become whole in time."""
        for (client, destination), flow in list(self._flows.items()):
            if not flow.is_told and flow.until_s <= now_s:
                yield self._tell(client, destination, flow)

    @property
    def next_s(self) -> float | None:
        """When the next flow is overdue."""
        return min(
            (flow.until_s for flow in self._flows.values() if not flow.is_told), default=None
        )

    @staticmethod
    def _tell(client: Address, destination: Address, flow: _Flow) -> RefusedQuic:
        told = RefusedQuic(client, destination, flow.quic.details())
        flow.is_told, flow.quic = True, Quic()
        return told


_UDP_HEADER: Final = 8
_IP_HEADERS: Final = {4: (20, 12, 4, socket.AF_INET), 6: (40, 8, 16, socket.AF_INET6)}
"""Bytes of the header without options, and of the addresses: where, how long, what."""


def _read(packet: bytes) -> tuple[Address, Address, bytes] | None:
    """Source, destination and payload of a packet of UDP, from its IP header on; None for one with
    extension headers, or that was cut off."""
    kind = _IP_HEADERS.get(packet[0] >> 4) if packet else None
    if kind is None:
        return None
    length, at, width, family = kind
    if family == socket.AF_INET:
        length = (packet[0] & 0x0F) * 4
    if len(packet) < length + _UDP_HEADER or packet[9 if width == 4 else 6] != socket.IPPROTO_UDP:
        return None
    source, destination = packet[at : at + width], packet[at + width : at + 2 * width]
    ports = struct.unpack_from("!HH", packet, length)
    client, server = (
        Address(socket.inet_ntop(family, ip), port)
        for ip, port in zip((source, destination), ports, strict=True)
    )
    return client, server, packet[length + _UDP_HEADER :]
