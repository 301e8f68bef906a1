"""A snapshot notices what a session could leave behind."""

import socket

import pytest

from mitml4.lab.snapshot import difference, take_snapshot
from mitml4.net.netns import NetNamespace


def test_equal_snapshots_have_no_difference():
    assert difference("a\nb\n", "a\nb\n") == ""


def test_a_difference_names_the_line():
    assert "+32765: from all fwmark 0x1 lookup 100" in difference(
        "# ip rule show\n", "# ip rule show\n32765: from all fwmark 0x1 lookup 100\n"
    )


@pytest.mark.parametrize(
    "change",
    [
        ["nft", "add", "table", "inet", "leftover"],
        ["ip", "rule", "add", "fwmark", "1", "lookup", "100"],
        ["ip", "-6", "rule", "add", "fwmark", "1", "lookup", "100"],
        ["ip", "route", "add", "local", "default", "dev", "lo", "table", "100"],
        ["ip", "link", "add", "leftover", "type", "veth"],
        ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/lo/route_localnet"],
    ],
    ids=lambda change: change[1] + " " + change[2] if change[0] != "sh" else "sysctl",
)
def test_a_snapshot_notices(change):
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        before = namespace.call(take_snapshot)
        namespace.run(*change)
        assert difference(before, namespace.call(take_snapshot)) != ""


def test_what_rules_count_and_collect_is_no_difference():
    """As on a host with a container engine or another session, whose own traffic goes on."""
    rules = """table ip other {
        set seen { type ipv4_addr; flags dynamic, timeout; timeout 1s; size 10; }
        chain c { type filter hook output priority 0; counter update @seen { ip daddr }; }
    }"""
    with NetNamespace() as namespace:
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("nft", "-f", "-", input=rules)
        before = namespace.call(take_snapshot)
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", 9))
        listing = namespace.run("nft", "list", "ruleset").stdout
        assert "packets 0 " not in listing
        assert "127.0.0.1" in listing
        assert difference(before, namespace.call(take_snapshot)) == ""
