"""The packets of an interface, captured without affecting them.

The kernel copies TCP packets into a mapped ring of blocks (TPACKET_V3; Linux's
Documentation/networking/packet_mmap.rst). A block is handed over when it is full or 50 ms old.
Packets that arrive while no block is free are lost, and counted.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import socket
import struct
from collections.abc import Iterator
from typing import Final, Self

import trio

from mitml4.dataclass import dataclass
from mitml4.errors import MachineError
from mitml4.net.place import HERE, Place

__all__ = ["LOOPBACK", "Seen", "Tap", "packet_socket"]

LOOPBACK: Final = "lo"

# linux/if_packet.h
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_IGNORE_OUTGOING: Final = 23
_TPACKET_V3: Final = 2
_TP_STATUS_KERNEL, _TP_STATUS_USER = 0, 1
_PACKET_OUTGOING: Final = 4

_ETH_P_ALL: Final = 3
_SIOCGIFHWADDR: Final = 0x8927
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_ETHERNET, _RAW_IP = 1, 101  # https://www.tcpdump.org/linktypes.html

_BLOCK: Final = 1 << 20
_BLOCKS: Final = 32
_FRAME: Final = 1 << 11
_RETIRE_MS: Final = 50

_BLOCK_HEAD: Final = struct.Struct("8xIII")  # status, packets, offset of the first
_PACKET_HEAD: Final = struct.Struct("IIIIIIHH")
_PACKET_TYPE_AT: Final = 48 + 10  # struct sockaddr_ll behind struct tpacket3_hdr, aligned

_SO_ATTACH_FILTER: Final = 26
_TCP_ONLY: Final = (
    # linux/filter.h: (code, jump if true, jump if false, operand)
    (0x28, 0, 0, 0xFFFFF000),  # load the protocol of the frame's payload
    (0x15, 0, 2, 0x0800),
    (0x30, 0, 0, 0xFFF00000 + 9),  # IPv4's protocol
    (0x15, 3, 4, socket.IPPROTO_TCP),
    (0x15, 0, 3, 0x86DD),
    (0x30, 0, 0, 0xFFF00000 + 6),  # IPv6's next header
    (0x15, 0, 1, socket.IPPROTO_TCP),
    (0x06, 0, 0, 0xFFFFFFFF),  # the whole packet
    (0x06, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A captured packet."""

    time_ns: int
    """Since the epoch."""
    frame: bytes
    network: int
    """Offset of the IP header."""
    length: int
    """Length of the frame before truncation."""
    outgoing: bool


def packet_socket(name: str, place: Place = HERE) -> socket.socket:
    """A socket for a tap on this interface of a network namespace. It does not receive yet.

    Raises OSError.
    """
    kind = socket.SOCK_RAW if _link_type(name, place) == _ETHERNET else socket.SOCK_DGRAM
    return place.socket(socket.AF_PACKET, kind)


def _link_type(name: str, place: Place) -> int:
    """Ethernet frames if the interface has an Ethernet header; otherwise packets from the IP header
    on."""
    with place.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16s24x", name.encode())
        answer = fcntl.ioctl(asking, _SIOCGIFHWADDR, request)
    (hardware,) = struct.unpack_from("H", answer, 16)
    return _ETHERNET if hardware in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK) else _RAW_IP


class Tap:
    """The TCP packets of an interface, in both directions."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        """Start to capture with a socket from `packet_socket`. Raises OSError."""
        self.name = name
        self.link_type = _ETHERNET if sock.type == socket.SOCK_RAW else _RAW_IP
        self._socket = sock
        self._received = self._missing = 0
        self._block = 0
        sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        size = _BLOCK * _BLOCKS
        ring = struct.pack("7I", _BLOCK, _BLOCKS, _FRAME, size // _FRAME, _RETIRE_MS, 0, 0)
        sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, ring)
        self._ring = mmap.mmap(sock.fileno(), size)
        _attach(sock, _TCP_ONLY)
        if name == LOOPBACK:  # outgoing packets of loopback also arrive
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        sock.bind((name, _ETH_P_ALL))

    @classmethod
    def open(cls, name: str, place: Place = HERE) -> Self:
        """A tap on an interface of a network namespace. Raises MachineError."""
        try:
            return cls(name, packet_socket(name, place))
        except OSError as error:
            raise MachineError(
                f"cannot see the packets of {name}: {error.strerror}", hint="mitml4 doctor"
            ) from error

    async def wait(self) -> None:
        """Wait until there are packets."""
        if not self._is_ready():
            await trio.lowlevel.wait_readable(self._socket)
        else:
            await trio.lowlevel.checkpoint()

    def take(self) -> Iterator[Seen]:
        """The packets of one block, if one is ready."""
        if self._is_ready():
            start = self._block * _BLOCK
            _, count, offset = _BLOCK_HEAD.unpack_from(self._ring, start)
            yield from self._packets(start + offset, count)
            struct.pack_into("I", self._ring, start + 8, _TP_STATUS_KERNEL)
            self._block = (self._block + 1) % _BLOCKS

    def statistics(self) -> tuple[int, int]:
        """Number of packets so far: received, and lost among those."""
        came, missed, _ = struct.unpack(
            "3I", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        )
        self._received += came
        self._missing += missed
        return self._received, self._missing

    def close(self) -> None:
        self._ring.close()
        self._socket.close()

    def _is_ready(self) -> bool:
        status, _, _ = _BLOCK_HEAD.unpack_from(self._ring, self._block * _BLOCK)
        return bool(status & _TP_STATUS_USER)

    def _packets(self, at: int, count: int) -> Iterator[Seen]:
        ring = self._ring
        for _ in range(count):
            following, seconds, nanoseconds, kept, length, _, start, network = (
                _PACKET_HEAD.unpack_from(ring, at)
            )
            yield Seen(
                seconds * 1_000_000_000 + nanoseconds,
                ring[at + start : at + start + kept],
                network - start,
                length,
                ring[at + _PACKET_TYPE_AT] == _PACKET_OUTGOING,
            )
            at += following


def _attach(sock: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Make the kernel copy only packets that a BPF program accepts."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
