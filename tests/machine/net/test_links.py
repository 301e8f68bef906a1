"""What becomes of interfaces, in a network of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from mitml4.net.links import Change, LinkWatch
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


def test_one_that_was_replaced_meanwhile_has_gone_and_come_back(host) -> None:
    async def watch() -> list[Change]:
        links = LinkWatch(("one",))
        host.run("ip", "link", "del", "one")
        host.run("ip", "link", "add", "one", "type", "bridge")
        found = await links.changes()
        links.close()
        return found

    assert host.call(lambda: trio.run(watch)) == [GONE, BACK]
