"""The process that workers are forked from.

A session can fork no worker once it has threads and connections. So this process is forked once the
session is ready, with everything that a flow needs, and does nothing but fork. It closes all
descriptors that workers do not need: what ends with the session's last descriptor of it (rules, a
namespace) must not wait for a worker. It ends with the session, however that ends, and its workers
end with it.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Final, NoReturn

from mitml4.errors import MachineError
from mitml4.net import processes
from mitml4.signals import ending_signals

__all__ = ["Starter"]

_STANDARD_ERROR: Final = 2
_ORDER: Final = b"+"


class Starter:
    """The session's side of it."""

    def __init__(self, work: Callable[[socket.socket], None], keep: Iterable[int] = ()) -> None:
        """`work` is what a worker does with its channel, in a thread of a new process, where trio
        does not run yet. Workers have these descriptors besides standard error. Raises
        MachineError."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self.pid = processes.fork_helper(self._channel)
                if not self.pid:
                    _serve(theirs, work, keep)
        except MachineError:
            self._channel.close()
            raise

    def start(self, channel: socket.socket) -> bool:
        """Start a worker, and close our copy of its channel. Returns False if it cannot be
        started: this process has ended. Raises OSError while too many descriptors are on their
        way."""
        with channel:
            try:
                socket.send_fds(self._channel, [_ORDER], [channel.fileno()])
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # unix(7)
                    raise
                return False
        return True

    def close(self) -> None:
        """It ends, and so do all workers."""
        self._channel.close()


def _serve(
    channel: socket.socket, work: Callable[[socket.socket], None], keep: Iterable[int]
) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in ending_signals():  # as they come to all processes of a service
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kept = {channel.fileno(), _STANDARD_ERROR, *keep}
        processes.close_descriptors(kept)
        processes.show_as("mitml4: starts workers")
        gc.freeze()  # what holds descriptors of the session's numbers is never finalized
        workers: set[int] = set()
        while True:
            data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
            if not data:
                break
            workers = {each for each in workers if not _has_ended(each)}
            for each in descriptors:
                workers |= _forked(channel, each, work)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        for pid in workers:  # they would be left to PID 1, which may reap nobody
            os.waitpid(pid, 0)
    finally:
        os._exit(0)


def _has_ended(pid: int) -> bool:
    """It is reaped then."""
    return os.waitpid(pid, os.WNOHANG)[0] != 0


def _forked(channel: socket.socket, theirs: int, work: Callable[[socket.socket], None]) -> set[int]:
    """The process id of a new worker; nothing if a limit forbids it, which the session sees by the
    end of the channel."""
    parent = os.getpid()
    try:
        pid = processes.fork_unwarned()
    except OSError:
        os.close(theirs)
        return set()
    if not pid:
        try:
            processes.die_with_parent(signal.SIGKILL, parent)
            channel.close()
            processes.show_as("mitml4: worker")
            # trio does not run twice in a thread, and it runs where the session was forked.
            thread = Thread(target=_work, args=(work, socket.socket(fileno=theirs)), name="worker")
            thread.start()
            thread.join()
        finally:
            os._exit(0)
    os.close(theirs)
    return {pid}


def _work(work: Callable[[socket.socket], None], channel: socket.socket) -> None:
    # Its handler runs in the main thread, which has to be the one that it wakes.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGURG,))
    work(channel)
