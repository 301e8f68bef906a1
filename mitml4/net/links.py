"""Interfaces that are renamed, removed or added, as the kernel reports it (rtnetlink(7))."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import trio

__all__ = ["Change", "LinkWatch"]

_NETLINK_ROUTE: Final = 0
_RTMGRP_LINK: Final = 1
_MAX_MESSAGE: Final = 1 << 16

What: TypeAlias = Literal["renamed", "gone", "back"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an interface; `new_name` is its new name."""

    what: What
    name: str
    new_name: str


class LinkWatch:
    """Watches interfaces of the network namespace in which it is created."""

    def __init__(self, names: Iterable[str]) -> None:
        """The interfaces exist. Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        self._socket.bind((0, _RTMGRP_LINK))
        present = {name: index for index, name in socket.if_nameindex()}
        self._indexes: dict[str, int | None] = {name: present.get(name) for name in names}

    @property
    def indexes(self) -> tuple[int, ...]:
        """The kernel's indexes of the interfaces that exist."""
        return tuple(index for index in self._indexes.values() if index is not None)

    async def changes(self) -> list[Change]:
        """The changes since the last call; waits until there are some."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            self._forget_messages()
            if found := self._compare(dict(socket.if_nameindex())):
                return found

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _forget_messages(self) -> None:
        """The messages only say that something has changed; some may be lost."""
        try:
            while True:
                self._socket.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise

    def _compare(self, present: Mapping[int, str]) -> list[Change]:
        """The changes since the last comparison; `present` maps the indexes of all interfaces to
        their names."""
        by_name = {name: index for index, name in present.items()}
        found = []
        for name, index in list(self._indexes.items()):
            if index is not None and index in present:
                if (new_name := present[index]) != name:
                    found.append(Change("renamed", name, new_name))
                    del self._indexes[name]
                    self._indexes[new_name] = index
                continue
            if index is not None:
                found.append(Change("gone", name, name))
            self._indexes[name] = by_name.get(name)
            if name in by_name:
                found.append(Change("back", name, name))
        return found
