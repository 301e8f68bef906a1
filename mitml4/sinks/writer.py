"""A process that writes for this one.

It completes what it was given, also if this process is killed meanwhile, and it keeps the right to
create files when this process gives that up. Each request is a message of bytes, of which only
whole ones are obeyed; the answer is another one.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from mitml4.errors import MachineError
from mitml4.net.capabilities import Capability
from mitml4.net.confinement import confine
from mitml4.net.processes import close_descriptors, fork_helper
from mitml4.signals import ending_signals

__all__ = ["Writer"]

_SIZE: Final = struct.Struct("=Q")
_READY: Final = b"\n"
_FAILED: Final = struct.Struct("=i")


class Writer:
    """Ends when it is closed, or when this process has ended."""

    def __init__(
        self,
        obey: Callable[[bytes], bytes],
        *,
        keep: Iterable[Capability] = (),
        descriptors: Iterable[int] = (),
    ) -> None:
        """`obey` handles a request in that process, and returns the answer or raises OSError. It is
        confined, and has only these descriptors and, if we have them, these capabilities.

        Returns when it is confined. Raises MachineError.
        """
        self._channel, theirs = socket.socketpair()
        with theirs:
            if not fork_helper(self._channel):
                _serve(theirs, obey, keep, descriptors)
        if self._channel.recv(len(_READY)) != _READY:
            self.close()
            raise MachineError(
                "the process that writes files has ended at its start", hint="sudo dmesg | tail"
            )

    def ask(self, request: bytes) -> bytes:
        """Returns the answer. Blocks. Raises OSError."""
        try:
            self._channel.sendall(_SIZE.pack(len(request)))
            self._channel.sendall(request)
            (code,) = _FAILED.unpack(_receive(self._channel, _FAILED.size))
            answer = _receive_message(self._channel)
        except (ConnectionError, EOFError):
            raise OSError(errno.EIO, "the process that writes it has ended") from None
        if code:
            raise OSError(code, os.strerror(code))
        return answer

    def close(self) -> None:
        self._channel.close()


def _serve(
    channel: socket.socket,
    obey: Callable[[bytes], bytes],
    keep: Iterable[Capability],
    descriptors: Iterable[int],
) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in ending_signals():  # as they come to all processes of a service
            signal.signal(number, signal.SIG_IGN)
        close_descriptors({channel.fileno(), *descriptors})
        confine(keep)
        channel.sendall(_READY)
        while True:
            request = _receive_message(channel)
            try:
                code, answer = 0, obey(request)
            except OSError as error:
                code, answer = error.errno or errno.EIO, b""
            channel.sendall(_FAILED.pack(code) + _SIZE.pack(len(answer)) + answer)
    except (EOFError, OSError):  # the other process has ended
        os._exit(0)
    finally:
        os._exit(1)


def _receive_message(channel: socket.socket) -> bytes:
    (size,) = _SIZE.unpack(_receive(channel, _SIZE.size))
    return _receive(channel, size)


def _receive(channel: socket.socket, size: int) -> bytes:
    """Raises EOFError if the other end closes before."""
    data = bytearray()
    while len(data) < size:
        piece = channel.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
