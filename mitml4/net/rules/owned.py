"""Sockets of users and cgroups, for test connections through the rules that are for these.

The kernel attributes a connection to the cgroup in which its socket was created, and to the user
who has, whoever uses it. So a helper creates sockets as those in question, and as others.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, Self

from mitml4.errors import MachineError
from mitml4.net import helper
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
                channel, (_, found) = helper.start(partial(_work, owner))
            except OSError as error:
                reason = f"cannot create sockets of the user {owner}: {error.strerror}"
                raise MachineError(reason, hint="run as root: sudo mitml4 …") from error
            channel.close()
            sockets = [socket.socket(fileno=each) for each in found]
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
    return [
        *_in_new_cgroup(cgroup.directory / name, cgroup.mount),
        *_in_new_cgroup(cgroup.directory.parent / name, cgroup.mount),
    ]


def _in_new_cgroup(directory: Path, mount: Path) -> list[socket.socket]:
    before = mount / _own_cgroup()[1:] / "cgroup.procs"
    try:
        directory.mkdir()
        try:
            (directory / "cgroup.procs").write_text("0")
            try:
                return _sockets()
            finally:
                before.write_text("0")
        finally:
            directory.rmdir()
    except OSError as error:
        raise MachineError(
            f"cannot test the cgroup {directory.parent}: {error.strerror}",
            hint="run as root, where /sys/fs/cgroup can be written; or --user NAME",
        ) from error


def _own_cgroup() -> str:
    rows = Path("/proc/self/cgroup").read_text().splitlines()
    return next(row for row in rows if row.startswith("0::")).removeprefix("0::")
