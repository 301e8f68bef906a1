"""Interfaces that get another name, go, or come back, as the kernel tells of it (rtnetlink(7))."""

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
    """What has become of an interface; `new_name` is its name from now on."""

    what: What
    name: str
    new_name: str


class LinkWatch:
    """Watches interfaces of the network namespace that it is made in."""

    def __init__(self, names: Iterable[str]) -> None:
        """They are there. Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)
        self._socket.bind((0, _RTMGRP_LINK))
        present = {name: index for index, name in socket.if_nameindex()}
        self._indexes: dict[str, int | None] = {name: present.get(name) for name in names}

    @property
    def indexes(self) -> tuple[int, ...]:
        """By which the kernel knows those that are there."""
        return tuple(index for index in self._indexes.values() if index is not None)

    async def changes(self) -> list[Change]:
        """Those that have happened since, as soon as there are any."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            self._forget_messages()
            if found := self._compare(dict(socket.if_nameindex())):
                return found

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def _forget_messages(self) -> None:
        """That something has changed is all they are needed for: some may be lost."""
        try:
            while True:
                self._socket.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise

    def _compare(self, present: Mapping[int, str]) -> list[Change]:
        """What is other than it was; `present` are the names of all interfaces by their indexes."""
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
