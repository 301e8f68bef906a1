"""Datagrams that a command sends and that go nowhere: counted, and said once."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final

import trio

from mitml4.address import Address

__all__ = ["Undelivered"]

_ORIGINAL_DESTINATION: Final = {
    (socket.SOL_IP, 20): socket.AF_INET,  # linux/in.h, IP_ORIGDSTADDR
    (socket.IPPROTO_IPV6, 74): socket.AF_INET6,  # linux/in6.h, IPV6_ORIGDSTADDR
}
_PORT_AND_IP: Final = {socket.AF_INET: "!2xH4s", socket.AF_INET6: "!2xH4x16s"}


class Undelivered:
    """Reads what arrives on the socket for all UDP."""

    def __init__(self, sock: socket.socket, note: Callable[[str], None]) -> None:
        """The socket stays the caller's. `note` is told, once, that UDP is not carried."""
        self.count = 0
        self._socket = trio.socket.from_stdlib_socket(sock.dup())
        self._note = note

    async def run(self) -> None:
        """Until cancelled."""
        with self._socket:
            while True:
                _, ancillary, _, _ = await self._socket.recvmsg(0, 128)
                self.count += 1
                if self.count == 1:
                    where = _original_destination(ancillary)
                    self._note(f"UDP is not carried, but dropped: the first was for {where}")


def _original_destination(ancillary: list[tuple[int, int, bytes]]) -> str:
    for level, kind, data in ancillary:
        if family := _ORIGINAL_DESTINATION.get((level, kind)):
            port, ip = struct.unpack_from(_PORT_AND_IP[family], data)
            return str(Address.of((socket.inet_ntop(family, ip), port)))
    return "an unknown destination"
