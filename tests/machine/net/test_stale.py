"""Entries of connections that nobody follows, held against the kernel."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from mitml4.address import Address
from mitml4.net.firewall.stale import remove_stale, stale_entries
from mitml4.net.gate.conntrack import Conntrack, Entry
from mitml4.net.netns import NetNamespace

SERVERS = {"ipv4": "198.51.100.2", "ipv6": "2001:db8:2::2"}
CLIENTS = {"ipv4": "192.0.2.2", "ipv6": "2001:db8:1::2"}
RULES = "table {0} t {{ chain c {{ type filter hook prerouting priority -300; {1}; }}; }}"
FOLLOWS = RULES.format("inet", "ct state established accept")


@pytest.fixture
def host() -> Iterator[NetNamespace]:
    """Where a connection of each version has an entry, and nobody follows any."""
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        add(namespace)
        yield namespace


def add(host: NetNamespace, *, mark: int = 0, becomes: str | None = None) -> None:
    with closing(host.call(Conntrack)) as conntrack:
        for version in ("ipv4", "ipv6") if becomes is None else ("ipv4",):
            entry = Entry(
                source=Address(CLIENTS[version], 40000 + bool(becomes)),
                destination=Address(SERVERS[version], 80),
                becomes_destination=Address(becomes, 4000) if becomes else None,
                mark=mark,
                lasts_s=300,
            )
            conntrack.add(entry)


def load(host: NetNamespace, rules: str) -> None:
    host.run("nft", "-f", "-", input=rules)


def tracked(host: NetNamespace) -> set[str]:
    """The versions of the connections."""
    with closing(host.call(Conntrack)) as conntrack:
        names: dict[int, str] = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}
        return {names[entry.family] for entry in conntrack.entries()}


def remove_all(host: NetNamespace) -> None:
    host.call(lambda: remove_stale(stale_entries()))


def test_what_nobody_follows_is_removed_and_the_question_leaves_nothing(host: NetNamespace) -> None:
    remove_all(host)
    with closing(host.call(Conntrack)) as conntrack:
        assert conntrack.count() == 0


@pytest.mark.parametrize(
    ("family", "kept"), [("inet", {"ipv4", "ipv6"}), ("ip", {"ipv4"}), ("ip6", {"ipv6"})]
)
def test_what_rules_follow_is_kept(host: NetNamespace, family: str, kept: set[str]) -> None:
    load(host, RULES.format(family, "ct state established accept"))
    remove_all(host)
    assert tracked(host) == kept


def test_what_rules_follow_meanwhile_is_kept(host: NetNamespace) -> None:
    entries = host.call(stale_entries)
    load(host, FOLLOWS)
    host.call(lambda: remove_stale(entries))
    assert tracked(host) == {"ipv4", "ipv6"}


def test_a_later_entry_of_the_same_addresses_is_kept(host: NetNamespace) -> None:
    entries = host.call(stale_entries)
    with closing(host.call(Conntrack)) as conntrack:
        while {entry.key for entry in entries} & {entry.key for entry in conntrack.entries()}:
            # The kernel gives an entry the number of the last one where it gives it its memory.
            conntrack.remove(Address(CLIENTS["ipv4"], 40000), Address(SERVERS["ipv4"], 80))
            conntrack.remove(Address(CLIENTS["ipv6"], 40000), Address(SERVERS["ipv6"], 80))
            add(host)
    host.call(lambda: remove_stale(entries))
    assert tracked(host) == {"ipv4", "ipv6"}


@pytest.mark.parametrize(("mark", "kept"), [(0, {"ipv4", "ipv6"}), (0x4D400007, set())])
def test_what_others_have_translated_keeps_all(
    host: NetNamespace, mark: int, kept: set[str]
) -> None:
    add(host, mark=mark, becomes="203.0.113.1")
    remove_all(host)
    assert tracked(host) == kept


@pytest.mark.parametrize("hindrance", ["the loopback is down", "its datagrams are dropped"])
def test_nothing_is_removed_if_nothing_shows_that_nobody_follows(
    host: NetNamespace, hindrance: str
) -> None:
    if hindrance == "the loopback is down":
        host.run("ip", "link", "set", "lo", "down")
    else:
        load(host, RULES.format("inet", "meta l4proto udp drop"))
    remove_all(host)
    assert tracked(host) == {"ipv4", "ipv6"}
