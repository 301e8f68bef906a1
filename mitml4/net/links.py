"""Interfaces that are renamed, removed, added or bridged, as rtnetlink(7) reports it."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

import trio

from mitml4.dataclass import dataclass
from mitml4.net.netlink import attributes, dump, receive_nowait
from mitml4.net.place import HERE, Place

__all__ = ["Change", "LinkWatch", "has_global_v6", "loopback_is_up", "names_of_links", "vrf_of"]

_NETLINK_ROUTE: Final = 0
_RTMGRP_LINK: Final = 1
_AGAIN_S: Final = 0.2

_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22
_ADDRESS: Final = struct.Struct("=BBBBi")  # struct ifaddrmsg
_GLOBAL: Final = 0  # RT_SCOPE_UNIVERSE
_LINK: Final = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFF_UP: Final = 1
_NAME, _MASTER, _INFO = 3, 10, 18  # IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO
_KIND: Final = 1  # IFLA_INFO_KIND

What: TypeAlias = Literal["renamed", "gone", "back", "joined", "left"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an interface; `other` is its new name, or the name of its master: the bridge or
    bond that it has joined or left."""

    what: What
    name: str
    other: str


@dataclass(frozen=True, slots=True)
class _Link:
    """An interface that exists."""

    index: int
    name: str
    master: int | None
    is_vrf: bool = False
    is_up: bool = False


class LinkWatch:
    """Watches interfaces of a network namespace.

    Rules match an interface that exists at the start by its index, whatever it is called later, and
    any interface by a name that was given.
    """

    def __init__(self, names: Iterable[str], place: Place = HERE) -> None:
        """The interfaces exist. Raises OSError."""
        self._socket = _route_socket(place)
        self._socket.bind((0, _RTMGRP_LINK))
        self._asking = _route_socket(place)  # kept: later there may be no descriptor left
        present = _links(self._asking)
        self._given = {name: _by_name(present, name) for name in names}
        self._now = dict(self._given)
        self._names = {link.index: link.name for link in present.values()}

    @property
    def indexes(self) -> tuple[int, ...]:
        """The kernel's indexes that the interfaces had at the start."""
        return tuple(link.index for link in self._given.values() if link)

    @property
    def names(self) -> tuple[str, ...]:
        """What the interfaces are called now."""
        return tuple(link.name if link else given for given, link in self._now.items())

    @property
    def masters(self) -> dict[str, str]:
        """The interfaces that belong to a bridge or a bond, and its name."""
        return {
            link.name: self._name(link.master)
            for link in self._now.values()
            if link and link.master
        }

    async def changes(self) -> list[Change]:
        """The changes since the last call; waits until there are some."""
        if not self._given:
            await trio.sleep_forever()
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            self._forget_messages()
            if found := self._compare(await self._present()):
                return found

    async def _present(self) -> dict[int, _Link]:
        """The interfaces that exist, once there is memory to tell of them."""
        while True:
            try:
                return _links(self._asking)
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
                    raise
            await trio.sleep(_AGAIN_S)

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._asking.close()

    def _forget_messages(self) -> None:
        """The messages only say that something has changed; some may be lost."""
        while receive_nowait(self._socket):
            pass

    def _compare(self, present: Mapping[int, _Link]) -> list[Change]:
        """The changes since the last comparison."""
        self._names |= {link.index: link.name for link in present.values()}
        found: list[Change] = []
        for given, first in self._given.items():
            before = self._now[given]
            now = present.get(first.index) if first else None
            now = now or _by_name(present, given)
            self._now[given] = now
            if before and now and before.index == now.index:
                found += self._changed(before, now)
                continue
            if before:
                found.append(Change("gone", before.name, before.name))
            if now:
                found.append(Change("back", now.name, now.name))
                found += self._changed(_Link(now.index, now.name, None), now)
        return found

    def _changed(self, before: _Link, now: _Link) -> Iterable[Change]:
        if before.name != now.name:
            yield Change("renamed", before.name, now.name)
        if before.master == now.master:
            return
        if now.master:
            yield Change("joined", now.name, self._name(now.master))
        elif before.master:
            yield Change("left", now.name, self._name(before.master))

    def _name(self, index: int) -> str:
        return self._names.get(index, str(index))


def names_of_links(place: Place) -> tuple[str, ...]:
    """The interfaces of a network namespace except `lo`. Raises OSError."""
    with _route_socket(place) as sock:
        return tuple(link.name for link in _links(sock).values() if link.name != "lo")


def loopback_is_up(place: Place) -> bool:
    """Whether `lo` of a network namespace is up. Raises OSError."""
    with _route_socket(place) as sock:
        return any(link.name == "lo" and link.is_up for link in _links(sock).values())


def has_global_v6(place: Place) -> bool:
    """Whether an interface of a network namespace has a global IPv6 address. Raises OSError."""
    asked = _ADDRESS.pack(socket.AF_INET6, 0, 0, 0, 0)
    with _route_socket(place) as sock:
        found = [_ADDRESS.unpack_from(each) for each in dump(sock, _RTM_GETADDR, asked)]
    return any(each[0] == socket.AF_INET6 and each[3] == _GLOBAL for each in found)


def vrf_of(name: str) -> str | None:
    """The VRF that an interface belongs to, or is. None if it does not exist. Raises OSError."""
    with _route_socket(HERE) as sock:
        present = _links(sock)
    link = _by_name(present, name)
    master = present.get(link.master) if link and link.master else None
    return next((each.name for each in (link, master) if each and each.is_vrf), None)


def _by_name(present: Mapping[int, _Link], name: str) -> _Link | None:
    return next((link for link in present.values() if link.name == name), None)


def _route_socket(place: Place) -> socket.socket:
    return place.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE)


def _links(sock: socket.socket) -> dict[int, _Link]:
    """The interfaces that exist, by index. Raises OSError."""
    links = map(_parse, dump(sock, _RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0)))
    return {link.index: link for link in links}


def _parse(body: bytes) -> _Link:
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = dict(attributes(body, skip=_LINK.size))
    master = found.get(_MASTER)
    name = found[_NAME].rstrip(b"\0").decode(errors="surrogateescape")
    kind = dict(attributes(found.get(_INFO, b""), skip=0)).get(_KIND, b"")
    return _Link(
        index=index,
        name=name,
        master=struct.unpack("=I", master)[0] if master else None,
        is_vrf=kind.rstrip(b"\0") == b"vrf",
        is_up=bool(flags & _IFF_UP),
    )
