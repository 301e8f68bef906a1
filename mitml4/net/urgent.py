"""TCP's urgent data, carried so that both ends see it at the same place (RFC 6093).

One byte at a time may be urgent: the one before the urgent pointer, as Linux has it. It is left in
the stream (SO_OOBINLINE), where the kernel lets no read go past it, so that whoever stands at the
mark can send it on as urgent. To ask for the mark costs a system call before each read; so nobody
asks until the kernel has said, by a signal, that there is urgent data in this session at all.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
from typing import Final

__all__ = ["expect_on", "has_come", "is_next", "listen_for_it"]

_SIOCATMARK: Final = 0x8905  # asm-generic/sockios.h

has_come = False
"""Whether any connection of this process has had urgent data."""


def listen_for_it() -> None:
    """Be told of it by SIGURG, which nobody else here uses. In the main thread."""
    signal.signal(signal.SIGURG, _hear)


def _hear(*_: object) -> None:
    global has_come
    has_come = True


def expect_on(sock: socket.socket) -> None:
    """Have it left in the stream, and be told of it: also of what has come before this call."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())
    poller = select.poll()
    poller.register(sock, select.POLLPRI)
    if poller.poll(0):
        _hear()


def is_next(sock: socket.socket) -> bool:
    """Whether the next byte of the stream, which need not have arrived, is urgent."""
    (at_mark,) = struct.unpack("i", fcntl.ioctl(sock, _SIOCATMARK, bytes(4)))
    return bool(at_mark)
