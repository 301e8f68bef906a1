"""A network namespace to which a session is attached, as a `Place` (net/place.py).

A helper in it creates the sockets, one for each request. So the session itself stays outside: in
its own network and, where the namespace belongs to a user namespace (rootless containers), without
the privileges of that.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn, Self

from mitml4.errors import MachineError
from mitml4.net import capabilities, helper, isolation, processes
from mitml4.net.attach.target import Target
from mitml4.net.capabilities import Capability
from mitml4.net.isolation import CLONE_NEWNET, CLONE_NEWUSER

__all__ = ["AttachedNetwork"]

_CONNECTING: Final = (
    (socket.AF_INET, socket.AF_INET6),
    (socket.SOCK_STREAM, socket.SOCK_DGRAM),
)
"""The families and types of sockets that a session creates while it runs."""


class AttachedNetwork:
    """A `Place`. Close it, or use it as a context manager."""

    def __init__(self, target: Target, channel: socket.socket) -> None:
        self._target = target
        self.channel = channel
        """It becomes readable when the helper has ended."""

    @classmethod
    def enter(cls, target: Target) -> Self:
        """Start the helper, before any thread is started. Raises MachineError."""
        namespaces = [each for each in (target.network, target.user) if each is not None]
        channel = helper.start(partial(_work, target), keep=namespaces)
        try:
            helper.receive(channel)
        except (OSError, MachineError) as error:
            channel.close()
            reason = error.message if isinstance(error, MachineError) else error.strerror
            raise MachineError(
                f"cannot enter {target.what}: {reason}", hint="run as root: sudo mitml4 …"
            ) from error
        return cls(target, channel)

    @property
    def entering(self) -> Callable[[], None]:
        return partial(_enter, self._target)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        _, (descriptor,) = helper.ask(
            self.channel, "socket", family=int(family), kind=int(kind), protocol=protocol
        )
        return socket.socket(fileno=descriptor)

    def restrict(self) -> None:
        """From now on, create only sockets that connect. Raises MachineError."""
        helper.ask(self.channel, "restrict")

    def close(self) -> None:
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
        if what == "restrict":
            self._is_restricted = True
            return {}, []
        family, kind = arguments["family"], arguments["kind"]
        if self._is_restricted and not (family in _CONNECTING[0] and kind in _CONNECTING[1]):
            raise PermissionError(errno.EPERM, "the session runs already")
        return {}, [socket.socket(family, kind, arguments["protocol"]).detach()]
