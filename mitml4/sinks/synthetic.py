"""TCP connections that are made up: the packets in which two ends could have said something.

Frames are Ethernet's, since every reader of packets knows it. The receiver acknowledges each
segment at once: readers that follow the state of a connection look at acknowledged data only.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import field
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

from mitml4.address import Address
from mitml4.dataclass import dataclass
from mitml4.net.gate.syn import checksum
from mitml4.protocols.conversation import Direction

__all__ = ["ACK", "FIN", "MAX_SEGMENT", "PSH", "RST", "SYN", "Packet", "SyntheticConnection"]

MAX_SEGMENT: Final = 16384
"""Bytes. A TLS record holds as many."""
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16  # RFC 9293 §3.1
_OPTIONS: Final = struct.pack("!BBH", 2, 4, MAX_SEGMENT) + b"\x03\x03\x0e\x00"
"""In a SYN: the maximum segment size, and the largest window scale (RFC 7323 §2.2)."""
_WINDOW: Final = 0xFFFF
_TCP: Final = 6
_V6_ENDS: Final = 32
_HOPS: Final = 64
_DONT_FRAGMENT: Final = 0x4000
_MAC: Final = {Direction.UP: b"\x02\0\0\0\0\x01", Direction.DOWN: b"\x02\0\0\0\0\x02"}
"""Locally administered addresses of the two senders."""
_WRAP: Final = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One packet: `data` behind `headers`."""

    connection: SyntheticConnection
    direction: Direction
    flags: int
    sequence: int
    acknowledged: int
    time_ns: int
    data: bytes | memoryview = b""

    def headers(self) -> bytes:
        """What comes before the data, with both checksums."""
        ends, ports = self.connection.ends[self.direction]
        options = _OPTIONS if self.flags & SYN else b""
        offset = (20 + len(options)) // 4 << 12
        acknowledged = self.acknowledged if self.flags & ACK else 0
        numbers = self.sequence, acknowledged, offset | self.flags, _WINDOW, 0, 0
        tcp = ports + struct.pack("!IIHHHH", *numbers) + options
        length = len(tcp) + len(self.data)
        total = checksum(ends, struct.pack("!II", length, _TCP), tcp, self.data)
        if len(ends) == _V6_ENDS:
            kind = b"\x86\xdd"
            ip = struct.pack("!IHBB", 6 << 28, length, _TCP, _HOPS) + ends
        else:
            kind = b"\x08\x00"
            ip = struct.pack("!BxHHHBBH", 0x45, 20 + length, 0, _DONT_FRAGMENT, _HOPS, _TCP, 0)
            ip = ip[:10] + checksum(ip, ends) + ends
        macs = _MAC[self.direction.other] + _MAC[self.direction]
        return b"".join((macs, kind, ip, tcp[:16], total, tcp[18:]))


@dataclass(slots=True)
class SyntheticConnection:
    """The packets of one connection. Each method returns those that come next."""

    flow: int
    """The number of the flow that it stands for."""
    client: Address
    server: Address
    ends: dict[Direction, tuple[bytes, bytes]] = field(init=False)
    """The addresses and the ports of a direction's packets, the sender's first."""
    _next: dict[Direction, int] = field(
        default_factory=lambda: {each: random.getrandbits(32) for each in Direction}
    )
    """The sequence number that comes next."""
    _ended: set[Direction] = field(default_factory=set)

    def __post_init__(self) -> None:
        family = AF_INET6 if self.client.is_v6 else AF_INET
        ends = [
            (inet_pton(family, each.ip), each.port.to_bytes(2))
            for each in (self.client, self.server)
        ]
        (source, target), (port, target_port) = zip(*ends, strict=True)
        self.ends = {
            Direction.UP: (source + target, port + target_port),
            Direction.DOWN: (target + source, target_port + port),
        }

    def open(self, time_ns: int) -> Iterator[Packet]:
        """The three-way handshake."""
        yield self._send(Direction.UP, SYN, time_ns)
        yield self._send(Direction.DOWN, SYN | ACK, time_ns)
        yield self._send(Direction.UP, ACK, time_ns)

    def say(self, direction: Direction, data: bytes, time_ns: int) -> Iterator[Packet]:
        """Data, and its acknowledgements."""
        view = memoryview(data)
        for start in range(0, len(data), MAX_SEGMENT):
            yield self._send(direction, PSH | ACK, time_ns, view[start : start + MAX_SEGMENT])
            yield self._send(direction.other, ACK, time_ns)

    def skip(self, direction: Direction, count: int) -> None:
        """So many bytes are missing in a direction: a gap in its sequence numbers."""
        self._next[direction] = (self._next[direction] + count) % _WRAP

    def end(self, direction: Direction, time_ns: int) -> Iterator[Packet]:
        """The end of a direction, unless it has ended."""
        if direction not in self._ended:
            self._ended.add(direction)
            yield self._send(direction, FIN | ACK, time_ns)
            yield self._send(direction.other, ACK, time_ns)

    def close(self, time_ns: int) -> Iterator[Packet]:
        """The ends of both directions."""
        for direction in Direction:
            yield from self.end(direction, time_ns)

    def reset(self, direction: Direction, time_ns: int) -> Iterator[Packet]:
        """A reset in this direction."""
        yield self._send(direction, RST | ACK, time_ns)

    def _send(
        self, direction: Direction, flags: int, time_ns: int, data: bytes | memoryview = b""
    ) -> Packet:
        sequence = self._next[direction]
        occupied = len(data) + bool(flags & (SYN | FIN))
        self._next[direction] = (sequence + occupied) % _WRAP
        return Packet(
            connection=self,
            direction=direction,
            flags=flags,
            sequence=sequence,
            acknowledged=self._next[direction.other],
            time_ns=time_ns,
            data=data,
        )
