"""What becomes of interfaces, in a network of the test's own."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from mitml4.net import links, netlink
from mitml4.net.links import Change, LinkWatch
from mitml4.net.netlink import NESTED, attribute
from mitml4.net.netns import NetNamespace


@pytest.fixture
def host() -> Iterator[NetNamespace]:
    with NetNamespace() as namespace:
        for name in ("one", "two", "other"):
            namespace.run("ip", "link", "add", name, "type", "bridge")
        yield namespace


def changes(host: NetNamespace, *commands: str) -> list[Change]:
    """What is told of `one` and `two`, after each of the commands of ip."""

    async def watch() -> list[Change]:
        links = LinkWatch(("one", "two"))
        found: list[Change] = []
        for command in commands:
            host.run("ip", "link", *command.split())
            with trio.move_on_after(0 if "third" in command else 10):
                found += await links.changes()
        links.close()
        return found

    return host.call(lambda: trio.run(watch))


GONE, BACK = Change("gone", "one", "one"), Change("back", "one", "one")
ADD, DELETE = "add one type bridge", "del one"


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (["set one name uno"], [Change("renamed", "one", "uno")]),
        (
            ["set one name uno", "set uno name one"],
            [Change("renamed", "one", "uno"), Change("renamed", "uno", "one")],
        ),
        ([DELETE], [GONE]),
        ([DELETE, ADD], [GONE, BACK]),
        ([DELETE, "set other name one"], [GONE, BACK]),
        (["set other name third", "del two"], [Change("gone", "two", "two")]),
        (
            ["set one name uno", "del uno"],
            [Change("renamed", "one", "uno"), Change("gone", "uno", "uno")],
        ),
    ],
)
def test_what_becomes_of_an_interface_is_told(host, commands, expected) -> None:
    assert changes(host, *commands) == expected


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        # The rules match the name that was given, and what had it at the start.
        ([DELETE, ADD, "set one name uno"], [GONE, BACK, GONE]),
        (
            ["set one name uno", "del uno", ADD],
            [Change("renamed", "one", "uno"), Change("gone", "uno", "uno"), BACK],
        ),
        (
            ["set one name uno", "set other name third", "set third name one"],
            [Change("renamed", "one", "uno")],
        ),
    ],
)
def test_what_is_told_is_what_the_rules_match(host, commands, expected) -> None:
    assert changes(host, *commands, "add third type bridge") == expected


def test_an_interface_that_joins_a_bridge_or_leaves_it_is_told(host) -> None:
    host.run("ip", "link", "add", "port", "type", "veth")

    async def watch() -> None:
        links = LinkWatch(("port",))
        assert links.masters == {}
        host.run("ip", "link", "set", "port", "master", "other")
        assert await links.changes() == [Change("joined", "port", "other")]
        assert links.masters == {"port": "other"}
        host.run("ip", "link", "set", "port", "nomaster")
        assert await links.changes() == [Change("left", "port", "other")]
        host.run("ip", "link", "set", "port", "master", "other")
        assert await links.changes() == [Change("joined", "port", "other")]
        host.run("ip", "link", "del", "other")
        assert await links.changes() == [Change("left", "port", "other")]
        links.close()

    host.call(lambda: trio.run(watch))


def test_one_that_was_replaced_meanwhile_has_gone_and_come_back(host) -> None:
    async def watch() -> list[Change]:
        links = LinkWatch(("one",))
        host.run("ip", "link", "del", "one")
        host.run("ip", "link", "add", "one", "type", "bridge")
        found = await links.changes()
        links.close()
        return found

    assert host.call(lambda: trio.run(watch)) == [GONE, BACK]


def test_an_interface_of_a_vrf_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages are made up, since few kernels have VRFs."""

    def link(index: int, name: bytes, *more: bytes) -> bytes:
        return (
            struct.pack("=BxHiII", 0, 0, index, 0, 0) + attribute(3, name + b"\0") + b"".join(more)
        )

    found = [
        link(1, b"red", attribute(18 | NESTED, attribute(1, b"vrf\0"))),
        link(
            2,
            b"one",
            attribute(10, struct.pack("=I", 1)),
            attribute(18 | NESTED, attribute(1, b"veth\0")),
        ),
        link(3, b"bridge", attribute(18 | NESTED, attribute(1, b"bridge\0"))),
        link(4, b"two", attribute(10, struct.pack("=I", 3))),
    ]
    monkeypatch.setattr(links, "dump", lambda *_: iter(found))
    names = ("red", "one", "bridge", "two", "none")
    assert [links.vrf_of(name) for name in names] == ["red", "red", None, None, None]


class OnlyAtTheStart:
    """The network namespace of the calling thread, until there is no descriptor left."""

    def __init__(self) -> None:
        self.is_exhausted = False

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        if self.is_exhausted:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return socket.socket(family, kind, protocol)


def test_changes_are_told_when_no_descriptor_is_left(host: NetNamespace) -> None:
    place: Any = OnlyAtTheStart()

    async def watch() -> list[Change]:
        links = LinkWatch(("one",), place)
        place.is_exhausted = True
        host.run("ip", "link", *DELETE.split())
        with trio.fail_after(10):
            found = await links.changes()
        links.close()
        return found

    assert host.call(lambda: trio.run(watch)) == [GONE]


def test_changes_are_told_once_there_is_memory(host: NetNamespace, monkeypatch) -> None:
    outcomes = iter([errno.ENOMEM, errno.ENOBUFS])

    def dump(*arguments):
        for code in outcomes:
            raise OSError(code, os.strerror(code))
        return netlink.dump(*arguments)

    async def watch() -> list[Change]:
        watched = LinkWatch(("one",))
        monkeypatch.setattr(links, "dump", dump)
        host.run("ip", "link", *DELETE.split())
        with trio.fail_after(10):
            found = await watched.changes()
        watched.close()
        return found

    assert host.call(lambda: trio.run(watch)) == [GONE]
    assert list(outcomes) == []
