"""What the rules and routes of others keep a connection from, it does not reach through mitml4:
each comes to what it comes to without a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mitml4.lab.network import CLIENT_V4, CLIENT_V6, SERVER_V4, SERVER_V6, WAN, LabNetwork
from tests.e2e.conftest import Interception, intercepting
from tests.e2e.others import ALSO_OPEN, CLOSED, NOBODY, PORT, Router, chain, comes_to


@pytest.fixture(scope="module", autouse=True)
def servers(serve) -> None:
    for port in (PORT, ALSO_OPEN):
        listen = f"TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0,backlog=64"
        serve("socat", listen, "EXEC:cat", port=port)


@pytest.fixture(scope="module")
def session(lab, authority, tmp_path_factory) -> Iterator[Interception]:
    """Of connections that are forwarded over wan, and of those that start in the router."""
    with intercepting(lab, tmp_path_factory.mktemp("session"), iface=WAN) as running:
        yield running


@pytest.fixture
def router(lab: LabNetwork) -> Iterator[Router]:
    with ExitStack() as undo:
        yield Router(lab.router, undo)


FORWARDED = {
    "a policy of drop": (chain("forward", "", policy="drop"), "TIMEOUT"),
    "a port that is dropped": (chain("forward", f"tcp dport {PORT} drop"), "TIMEOUT"),
    "another port that is dropped": (chain("forward", f"tcp dport {ALSO_OPEN} drop"), "echo"),
    "a destination that is dropped": (
        chain("forward", f"ip daddr {SERVER_V4} drop\nip6 daddr {SERVER_V6} drop"),
        "TIMEOUT",
    ),
    "a client that is reset": (
        chain(
            "forward",
            f"ip saddr {CLIENT_V4} reject with tcp reset\n"
            f"ip6 saddr {CLIENT_V6} reject with tcp reset",
        ),
        "ECONNREFUSED",
    ),
    "a way that is unreachable": (
        chain("forward", "iifname lan oifname wan reject with icmpx type host-unreachable"),
        "EHOSTUNREACH",
    ),
    "a chain that is jumped to": (
        "chain d {\niifname lan drop\n}\n" + chain("forward", "jump d"),
        "TIMEOUT",
    ),
    "behind all others": (chain("forward", "iifname lan drop", "2147483647"), "TIMEOUT"),
    "before the routes": (chain("prerouting", "iifname lan drop", "0"), "TIMEOUT"),
    "behind the routes": (
        chain("postrouting", "iifname lan tcp flags syn drop", "mangle"),
        "TIMEOUT",
    ),
    "behind source translation": (chain("postrouting", "iifname lan drop", "300"), "TIMEOUT"),
    "a stateful wall with a door": (
        chain(
            "forward",
            f"ct state established,related accept\niifname lan tcp dport {PORT} accept",
            policy="drop",
        ),
        "echo",
    ),
}


@pytest.mark.parametrize("name", FORWARDED)
def test_rules_for_what_is_forwarded_hold(lab, router, session, name: str) -> None:
    rules, expected = FORWARDED[name]
    router.load(rules)
    watch = session.watch()
    comes_to(lab.client, expected)
    if expected == "echo":
        watch.flows(2)
    else:
        assert session.flows(watch.since) == []


LOCAL = {
    "a wall with a door for all but one user": (
        chain(
            "output",
            f"ct state established accept\noif lo accept\nmeta l4proto icmpv6 accept\n"
            f"meta skuid != {NOBODY} tcp dport {PORT} accept",
            policy="drop",
        ),
        "echo",
        "TIMEOUT",
    ),
    "a user that is reset": (
        chain("output", f"meta skuid {NOBODY} tcp dport {PORT} reject with tcp reset"),
        "echo",
        "ECONNREFUSED",
    ),
    "a destination that is dropped": (
        chain("output", f"ip daddr {SERVER_V4} drop\nip6 daddr {SERVER_V6} drop"),
        "TIMEOUT",
        "TIMEOUT",
    ),
    "behind all others": (
        chain("output", f"meta skuid {NOBODY} meta l4proto tcp drop", "2147483647"),
        "echo",
        "TIMEOUT",
    ),
    "behind the routes": (
        chain("postrouting", f"meta skuid {NOBODY} tcp dport {PORT} drop", "mangle"),
        "echo",
        "TIMEOUT",
    ),
}


@pytest.mark.parametrize("name", LOCAL)
def test_rules_for_what_this_host_starts_hold(router, session, name: str) -> None:
    rules, roots, nobodys = LOCAL[name]
    router.load(rules)
    watch = session.watch()
    comes_to(router.namespace, roots)
    comes_to(router.namespace, nobodys, uid=NOBODY)
    if roots == "echo":
        watch.flows(2)
    else:
        assert session.flows(watch.since) == []


ROUTES = {
    "unreachable": ("rule add from {client} unreachable priority 50", "ENETUNREACH", "ENETUNREACH"),
    "prohibit": ("rule add iif lan prohibit priority 50", "EHOSTUNREACH", "EACCES"),
    "blackhole": ("rule add iif lan blackhole priority 50", "TIMEOUT", "TIMEOUT"),
}


@pytest.mark.parametrize("name", ROUTES)
def test_routes_hold(lab, router, session, name: str) -> None:
    """Those that keep off a client, and would let us through."""
    command, v4, v6 = ROUTES[name]
    for version, client in (("-4", CLIENT_V4), ("-6", CLIENT_V6)):
        router.ip(f"{version} {command.format(client=client)}")
    comes_to(lab.client, v4, (SERVER_V4,))
    comes_to(lab.client, v6, (SERVER_V6,))


def test_a_packet_that_may_go_no_further_goes_no_further(lab, session) -> None:
    comes_to(lab.client, "EHOSTUNREACH", ttl=1)
    comes_to(lab.client, "echo", ttl=2)


def test_what_the_server_refuses_is_refused(lab, router, session) -> None:
    for host in (lab.client, router.namespace):
        comes_to(host, "ECONNREFUSED", port=CLOSED)


def test_what_the_server_has_no_way_to_is_unreachable(lab, router, session) -> None:
    """Once the router asks for its neighbour in vain."""
    nobody = ("203.0.113.9", "2001:db8:9::9")
    for version, address in zip(("-4", "-6"), nobody, strict=True):
        router.ip(f"{version} route add {address} via {address} dev wan onlink")
    comes_to(lab.client, "EHOSTUNREACH", nobody)


MARKS = {
    "of packets": "meta mark set 0x1",
    "of connections": "ct mark set 0x1",
    "none": "meta mark set 0x0 ct mark set 0x0",
    "saved": "ct state new meta mark set 0x1 ct mark set meta mark",
    "restored and saved": "meta mark set ct mark\nmeta mark 0x0 meta mark set 0x1\n"
    "ct mark set meta mark",
}


@pytest.mark.parametrize("name", MARKS)
def test_marks_that_others_give_to_everything_do_no_harm(lab, router, session, name: str) -> None:
    """Our own connections would be intercepted again and again, if they were told by their mark."""
    router.load(
        "\n".join(
            chain(hook, MARKS[name], "mangle").replace("chain c", f"chain {hook}")
            for hook in ("output", "postrouting", "prerouting")
        )
    )
    watch = session.watch()
    for host in (lab.client, router.namespace):
        comes_to(host, "echo")
    assert len(watch.flows(4)) == 4


def test_answers_of_the_kernel_that_have_their_packets_mark_arrive(router, session) -> None:
    """The mark by which a client is to be refused must not keep the refusal from it."""
    for version in ("ipv4", "ipv6"):
        router.sysctl(f"net/{version}/fwmark_reflect", "1")
    comes_to(router.namespace, "ECONNREFUSED", port=CLOSED)


def test_there_is_nothing_of_ours_to_flush(lab, router, session) -> None:
    """The table has an owner; and there is nothing else."""
    router.namespace.run("nft", "flush", "ruleset")
    for version in ("-4", "-6"):
        router.namespace.run("ip", version, "rule", "flush")
        router.namespace.run("ip", version, "rule", "add", "lookup", "main", "priority", "32766")
        router.namespace.run("ip", version, "route", "flush", "cache")
    router.namespace.run("ip", "-4", "rule", "add", "lookup", "default", "priority", "32767")
    watch = session.watch()
    for host in (lab.client, router.namespace):
        comes_to(host, "echo")
    watch.flows(4)


def test_a_block_refuses_as_the_server_would(lab, intercept, router) -> None:
    session = intercept("--block", f"{SERVER_V4}:{PORT}", "--block", SERVER_V6, iface=WAN)
    for host in (lab.client, router.namespace):
        comes_to(host, "ECONNREFUSED")
        comes_to(host, "echo", (SERVER_V4,), port=ALSO_OPEN)
    reasons = [flow.closed["reason"] for flow in session.watch().session.flows() if flow.closed]
    assert reasons.count("blocked") == 4


@pytest.mark.parametrize("rule", ["notrack", "ct zone set 7"])
def test_a_block_holds_for_what_conntrack_does_not_show(lab, intercept, router, rule: str) -> None:
    intercept("--block", f"{SERVER_V4}:{PORT}", "--block", SERVER_V6, iface=WAN)
    router.load(chain("prerouting", rule, "raw"))
    comes_to(lab.client, "TIMEOUT")
    comes_to(lab.client, "echo", (SERVER_V4,), port=ALSO_OPEN)
