"""The network namespace in which a session has its sockets and its rules: this process's own, or
another one (net/attach), which this process does not enter."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Protocol

__all__ = ["HERE", "Place"]


class Place(Protocol):
    """Creates sockets in a network namespace, and lets programs run in it."""

    @property
    def entering(self) -> Callable[[], None] | None:
        """What a new process calls to be in it before it executes a program; None: nothing."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket there, which is not inherited by programs. Raises OSError."""


class _Here:
    """The network namespace of this process."""

    entering: Final = None

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return socket.socket(family, kind, protocol)


HERE: Final[Place] = _Here()
