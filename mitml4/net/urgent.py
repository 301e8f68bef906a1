"""TCP urgent data, forwarded so that both ends see it at the same position (RFC 6093).

One byte at a time can be urgent: on Linux, the byte before the urgent pointer. It is left in the
stream (SO_OOBINLINE), where the kernel does not let a read cross it, so that the reader at this
mark can forward it as urgent. Asking for the mark costs a system call before each read; so it is
asked only after a signal has reported urgent data in this session.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
from typing import Final

__all__ = ["expect_on", "has_come", "is_next", "leave_in_stream", "listen_for_it"]

_SIOCATMARK: Final = 0x8905  # asm-generic/sockios.h

has_come = False
"""Whether any connection of this process has had urgent data."""


def listen_for_it() -> None:
    """Make SIGURG report urgent data; nothing else here uses this signal. Call it in the main
    thread."""
    signal.signal(signal.SIGURG, _hear)


def _hear(*_: object) -> None:
    global has_come
    has_come = True


def leave_in_stream(sock: socket.socket) -> None:
    """Leave urgent data where it stands in the stream of this socket."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def expect_on(sock: socket.socket) -> None:
    """Report urgent data that comes on this socket, also if it arrived before this call."""
    fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())
    poller = select.poll()
    poller.register(sock, select.POLLPRI)
    if poller.poll(0):
        _hear()


def is_next(sock: socket.socket) -> bool:
    """Whether the next byte of the stream is urgent, even if it has not arrived yet."""
    (at_mark,) = struct.unpack("i", fcntl.ioctl(sock, _SIOCATMARK, bytes(4)))
    return bool(at_mark)
