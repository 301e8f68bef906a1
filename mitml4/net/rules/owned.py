"""Sockets of users and cgroups, for test connections through the rules that are for these.

The kernel attributes a connection to the cgroup in which its socket was created, and to the user
who has, whoever uses it. So a helper creates sockets as those in question, and as others.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Self

from mitml4.errors import MachineError
from mitml4.net import helper, processes
from mitml4.net.rules.scope import Cgroup, Owner

__all__ = ["OwnedSockets"]

_ATTEMPTS: Final = 4
_NAME: Final = "mitml4-test-{}"


class OwnedSockets:
    """Pairs of sockets for TCP over IPv4: one of an owner, and one of another. Close it, or use it
    as a context manager."""

    def __init__(self, pairs: dict[Owner, list[tuple[socket.socket, socket.socket]]]) -> None:
        self._pairs = pairs

    @classmethod
    def create(cls, owners: Sequence[Owner]) -> Self:
        """Call it while there is one thread. Raises MachineError."""
        pairs: dict[Owner, list[tuple[socket.socket, socket.socket]]] = {}
        for owner in owners:
            try:
                creator = helper.start(partial(_work, owner))
            except OSError as error:
                reason = f"cannot create sockets of the user {owner}: {error.strerror}"
                raise MachineError(reason, hint="run as root: sudo mitml4 …") from error
            creator.channel.close()
            processes.wait_for_helper(creator.pid)
            sockets = [socket.socket(fileno=each) for each in creator.descriptors]
            pairs[owner] = list(zip(sockets[:_ATTEMPTS], sockets[_ATTEMPTS:], strict=True))
        return cls(pairs)

    def take(self, owner: Owner) -> tuple[socket.socket, socket.socket] | None:
        """A pair that was not taken before; None: there is none left."""
        pairs = self._pairs[owner]
        return pairs.pop() if pairs else None

    def close(self) -> None:
        for pairs in self._pairs.values():
            for pair in pairs:
                for sock in pair:
                    sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work(owner: Owner, channel: socket.socket) -> NoReturn:
    """The helper."""
    sockets = _by_user(owner) if isinstance(owner, int) else _in_cgroup(owner)
    helper.send(channel, {}, [each.detach() for each in sockets])
    os._exit(0)


def _sockets() -> list[socket.socket]:
    return [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(_ATTEMPTS)]


def _by_user(uid: int) -> list[socket.socket]:
    found = []
    for each in (uid, 0 if uid else 1):
        os.seteuid(each)
        found += _sockets()
        os.seteuid(0)
    return found


def _in_cgroup(cgroup: Cgroup) -> list[socket.socket]:
    """In a new cgroup inside of it, and in another beside it: others may not permit processes."""
    name = _NAME.format(os.getpid())
    inside, outside = cgroup.directory / name, cgroup.directory.parent / name
    return [*_in_new_cgroup(inside), *_in_new_cgroup(outside)]


def _in_new_cgroup(directory: Path) -> list[socket.socket]:
    try:
        directory.mkdir()
        try:
            return _created_in(directory)
        finally:
            directory.rmdir()
    except OSError as error:
        raise MachineError(
            f"cannot test the cgroup {directory.parent}: {error.strerror}",
            hint="run as root, where /sys/fs/cgroup can be written; or --user NAME",
        ) from error


def _created_in(directory: Path) -> list[socket.socket]:
    """Created by a child, which ends in the cgroup. To come back is not always possible: a process
    that has entered a container is in a cgroup that no path leads to (cgroup_namespaces(7))."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        child = processes.fork()
        if not child:
            os._exit(_send_from(directory, theirs))
        if number := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            raise OSError(number, os.strerror(number))
        _, found, _, _ = socket.recv_fds(ours, 1, _ATTEMPTS)
    return [socket.socket(fileno=each) for each in found]


def _send_from(directory: Path, channel: socket.socket) -> int:
    """Returns the number of the error, or 0."""
    try:
        (directory / "cgroup.procs").write_text("0")
        sockets = _sockets()
        socket.send_fds(channel, [b"."], [each.fileno() for each in sockets])
    except OSError as error:
        return error.errno or errno.EIO
    return 0
