"""Datagrams of a command, other than DNS and QUIC: dropped and counted, or relayed unseen.

They arrive on one transparent socket, each with its original destination. To relay them, each pair
of client and destination has a socket on the host. A reply is sent to the client as a packet whose
source is the destination.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

import trio

from mitml4.address import Address
from mitml4.errors import MachineError
from mitml4.net.gate.syn import checksum
from mitml4.net.namespace.namespace import Namespace
from mitml4.net.namespace.rules import Mark

__all__ = ["CarriedDatagrams", "DroppedDatagrams"]

_ORIGINAL_DESTINATION: Final = {
    (socket.SOL_IP, 20): socket.AF_INET,  # linux/in.h, IP_ORIGDSTADDR
    (socket.IPPROTO_IPV6, 74): socket.AF_INET6,  # linux/in6.h, IPV6_ORIGDSTADDR
}
_PORT_AND_IP: Final = {socket.AF_INET: "!2xH4s", socket.AF_INET6: "!2xH4x16s"}
_ROOM: Final = 128  # for the ancillary data
_MAX_SIZE: Final = 65535
_IP_HEADER, _UDP_HEADER, _HOPS = 20, 8, 64
_MAX_PAIRS: Final = 512
_IDLE_S: Final = 120.0  # RFC 4787 §4.3, REQ-5

log = logging.getLogger(__name__)


class DroppedDatagrams:
    """Reads and drops them."""

    def __init__(
        self, namespace: Namespace, note: Callable[[str], None], *, may_pass: bool
    ) -> None:
        """`note` is called once, when datagrams are dropped. `may_pass`: there is an option that
        lets them pass."""
        self._hint = ": --udp pass" if may_pass else ""
        self.count = 0
        self._socket = trio.socket.from_stdlib_socket(namespace.datagrams.dup())
        self._note = note

    async def run(self) -> None:
        """Runs until cancelled."""
        with self._socket:
            while True:
                _, ancillary, _, _ = await self._socket.recvmsg(0, _ROOM)
                self.count += 1
                if self.count == 1:
                    where = _original_destination(ancillary) or "somewhere"
                    self._note(f"UDP is dropped (the first datagram was for {where}){self._hint}")


class CarriedDatagrams:
    """Relays them, for a limited number of pairs at a time."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._socket = trio.socket.from_stdlib_socket(namespace.datagrams.dup())
        self._outside: dict[tuple[Address, Address], trio.socket.SocketType] = {}

    async def run(self) -> None:
        """Runs until cancelled."""
        with self._socket:
            async with trio.open_nursery() as nursery:
                while True:
                    data, ancillary, _, name = await self._socket.recvmsg(_MAX_SIZE, _ROOM)
                    assert isinstance(name, tuple)
                    destination = _original_destination(ancillary)
                    if destination is None:
                        continue
                    await self._send(data, Address.of(name), destination, nursery)

    async def _send(
        self, data: bytes, client: Address, destination: Address, nursery: trio.Nursery
    ) -> None:
        pair = client, destination
        try:
            if pair not in self._outside:
                if len(self._outside) >= _MAX_PAIRS:
                    return
                await nursery.start(self._carry_back, pair)
            await self._outside[pair].send(data)
        except (OSError, MachineError, KeyError):  # dropped, as a network may do
            log.info("lost a datagram to %s", destination, exc_info=True)

    async def _carry_back(
        self, pair: tuple[Address, Address], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Relay the destination's replies, until it has been silent for long."""
        client, destination = pair
        family = socket.AF_INET6 if destination.is_v6 else socket.AF_INET
        with trio.socket.socket(family, socket.SOCK_DGRAM) as outside:
            try:
                await outside.connect((destination.ip, destination.port))
            except OSError:
                log.info("cannot relay datagrams to %s", destination, exc_info=True)
                task_status.started()
                return
            self._outside[pair] = outside
            task_status.started()
            try:
                await self._relay(outside, client, destination)
            finally:
                del self._outside[pair]

    async def _relay(
        self, outside: trio.socket.SocketType, client: Address, destination: Address
    ) -> None:
        while True:
            with trio.move_on_after(_IDLE_S) as timeout:
                try:
                    data = await outside.recv(_MAX_SIZE)
                except ConnectionRefusedError:  # an ICMP error, which is not relayed to the client
                    continue
                except OSError:
                    return
                packet = _datagram(destination, client, data)
                self._namespace.injection.send(packet, client, Mark.OWN)
            if timeout.cancelled_caught:
                return


def _datagram(source: Address, target: Address, data: bytes) -> bytes:
    """As a packet: a socket with that source address would occupy its port, which servers inside
    may need. (The kernel fills in zero fields of the IPv4 header, raw(7).)"""
    family = socket.AF_INET6 if target.is_v6 else socket.AF_INET
    ends = socket.inet_pton(family, source.ip) + socket.inet_pton(family, target.ip)
    length = _UDP_HEADER + len(data)
    head = struct.pack("!HHH", source.port, target.port, length)
    total = checksum(ends + struct.pack("!II", length, socket.IPPROTO_UDP) + head + b"\0\0" + data)
    body = head + (total if any(total) else b"\xff\xff") + data  # RFC 768: zero means no checksum
    if target.is_v6:
        return struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, _HOPS) + ends + body
    first = struct.pack("!BxHHHBBH", 0x45, _IP_HEADER + length, 0, 0, _HOPS, socket.IPPROTO_UDP, 0)
    return first + ends + body


def _original_destination(ancillary: list[tuple[int, int, Any]]) -> Address | None:
    for level, kind, data in ancillary:
        if family := _ORIGINAL_DESTINATION.get((level, kind)):
            port, ip = struct.unpack_from(_PORT_AND_IP[family], data)
            return Address.of((socket.inet_ntop(family, ip), port))
    return None
