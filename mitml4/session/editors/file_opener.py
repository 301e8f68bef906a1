"""A process that opens the session's files of rules once the session may not any more.

A session that root has started gives up root, and files that only root may read with it. This
process is forked before that. It keeps the right to read every file, and does one thing: it opens
the files that it was given at its start, by their names in folders that are open, and hands over
their descriptors.

    session:  a number of 4 bytes, and the index of a file
    process:  the same number, and 0 with a descriptor, or an errno

It ends with the session.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
from collections.abc import Sequence
from typing import Final, NoReturn

from mitml4.net import capabilities, processes, seccomp
from mitml4.net.capabilities import Capability
from mitml4.signals import ending_signals

__all__ = ["FileOpener", "Named"]

Named = tuple[int, str]
"""An open folder, and the name of a file in it."""

_MESSAGE: Final = struct.Struct("!LL")
_ANSWER_S: Final = 2.0
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class FileOpener:
    """The session's side of it."""

    def __init__(self, files: Sequence[Named]) -> None:
        """Raises MachineError if the process cannot be started."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(_ANSWER_S)
        self._count = 0
        with theirs:
            if not processes.fork_helper(self._channel):
                _serve(theirs, files)

    def open(self, index: int) -> int:
        """A descriptor of this file, the caller's to close. Raises OSError."""
        self._count += 1
        self._channel.send(_MESSAGE.pack(self._count, index))
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE.size, 1)
            if not data:
                raise OSError(errno.EPIPE, "the process that opens it has ended")
            number, code = _MESSAGE.unpack(data)
            if number == self._count:
                break
            for each in descriptors:  # of an answer that came too late
                os.close(each)
        if code:
            raise OSError(code, os.strerror(code))
        return descriptors[0]

    def close(self) -> None:
        """The process ends."""
        self._channel.close()


def _serve(channel: socket.socket, files: Sequence[Named]) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in ending_signals():  # as they come to all processes of a service
            signal.signal(number, signal.SIG_IGN)
        links = [_is_link(*each) for each in files]
        processes.close_descriptors({channel.fileno(), *(folder for folder, _ in files)})
        _confine()
        while data := channel.recv(_MESSAGE.size):
            number, index = _MESSAGE.unpack(data)
            _answer(channel, number, *files[index], is_link=links[index])
    except (OSError, IndexError, struct.error):  # the session has ended, or is not itself any more
        os._exit(0)
    finally:
        os._exit(0)


def _confine() -> None:
    """Keep the right to read files, and nothing else."""
    with contextlib.suppress(PermissionError):
        capabilities.drop_for_good(range(capabilities.LIMIT))
    capabilities.keep_only((Capability.DAC_READ_SEARCH,))
    processes.forbid_new_privileges()
    processes.close_memory()
    with contextlib.suppress(OSError):  # a kernel without seccomp filters
        seccomp.install(seccomp.SESSION)


def _answer(channel: socket.socket, number: int, folder: int, name: str, *, is_link: bool) -> None:
    try:
        descriptor = os.open(name, _FLAGS | (0 if is_link else os.O_NOFOLLOW), dir_fd=folder)
    except OSError as error:
        channel.send(_MESSAGE.pack(number, error.errno or errno.EIO))
        return
    try:
        socket.send_fds(channel, [_MESSAGE.pack(number, 0)], [descriptor])
    finally:
        os.close(descriptor)


def _is_link(folder: int, name: str) -> bool:
    """Only what was a link when root named it may be one: a link that replaces a file could lead to
    one that its author may not read."""
    try:
        os.readlink(name, dir_fd=folder)
    except OSError:
        return False
    return True
