"""A network namespace to which a session is attached, as a `Place` (net/place.py).

A helper in it creates the sockets. So the session itself stays outside: in its own network and,
where the namespace belongs to a user namespace (rootless containers), without the privileges of
that.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, Final, NoReturn, Self

from mitml4.errors import MachineError
from mitml4.net import capabilities, helper, isolation, processes
from mitml4.net.attach.target import Target
from mitml4.net.capabilities import Capability
from mitml4.net.firewall.stale import forget_stale
from mitml4.net.isolation import CLONE_NEWNET, CLONE_NEWUSER

__all__ = ["AttachedNetwork"]

_AT_ONCE: Final = 8
"""So many sockets are created for a request: the others are for later connections."""


class AttachedNetwork:
    """A `Place`. Close it, or use it as a context manager."""

    def __init__(self, target: Target, channel: socket.socket) -> None:
        self._target = target
        self.channel = channel
        """It becomes readable when the helper has ended."""
        self._spare: dict[tuple[int, int, int], list[socket.socket]] = {}

    @classmethod
    def enter(cls, target: Target) -> Self:
        """Start the helper, before any thread is started. Raises MachineError."""
        namespaces = [each for each in (target.network, target.user) if each is not None]
        try:
            channel = helper.start(partial(_work, target), keep=namespaces).channel
        except (OSError, MachineError) as error:
            reason = error.message if isinstance(error, MachineError) else error.strerror
            raise MachineError(
                f"cannot enter {target.what}: {reason}", hint="run as root: sudo mitml4 …"
            ) from error
        return cls(target, channel)

    @property
    def entering(self) -> Callable[[], None]:
        return partial(_enter, self._target)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        wanted = int(family), int(kind), protocol
        spare = self._spare.setdefault(wanted, [])
        if not spare:
            count = _AT_ONCE if _is_for_connecting(family, kind) else 1
            _, descriptors = helper.ask(self.channel, "sockets", wanted=wanted, count=count)
            spare += (socket.socket(fileno=each) for each in descriptors)
        return spare.pop()

    def forget_stale(self) -> None:
        """Remove entries of conntrack there that nobody follows. Raises MachineError."""
        helper.ask(self.channel, "forget")

    def restrict(self) -> None:
        """From now on, create only sockets that connect. Raises MachineError."""
        helper.ask(self.channel, "restrict")

    def close(self) -> None:
        for sock in chain.from_iterable(self._spare.values()):
            sock.close()
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work(target: Target, channel: socket.socket) -> NoReturn:
    _enter(target)
    processes.close_memory()
    helper.send(channel, {}, [])
    helper.serve(channel, _Sockets().answer, leave=lambda: None)


def _enter(target: Target) -> None:
    """Move this process, which has one thread, into the namespace, with the power to change it, for
    programs that it executes too. Raises OSError."""
    if target.user is not None:
        isolation.setns(target.user, CLONE_NEWUSER)
    isolation.setns(target.network, CLONE_NEWNET)
    if target.user is not None:
        capabilities.hand_down({Capability.NET_ADMIN, Capability.NET_RAW})


class _Sockets:
    """The helper's work."""

    def __init__(self) -> None:
        self._is_restricted = False

    def answer(self, what: str, arguments: dict[str, Any], _: list[int]) -> helper.Answer:
        match what:
            case "restrict":
                self._is_restricted = True
            case "forget":
                self._check(is_for_connecting=False)
                forget_stale()
            case _:
                return {}, list(self._create(arguments["wanted"], arguments["count"]))
        return {}, []

    def _create(self, wanted: tuple[int, int, int], count: int) -> Iterator[int]:
        family, kind, protocol = wanted
        self._check(is_for_connecting=_is_for_connecting(family, kind))
        for _ in range(min(count, _AT_ONCE)):
            yield socket.socket(family, kind, protocol).detach()

    def _check(self, *, is_for_connecting: bool) -> None:
        if self._is_restricted and not is_for_connecting:
            raise PermissionError(errno.EPERM, "the session runs already")


def _is_for_connecting(family: int, kind: int) -> bool:
    """Whether a session creates such sockets while it runs."""
    is_internet = family in (socket.AF_INET, socket.AF_INET6)
    return is_internet and kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
