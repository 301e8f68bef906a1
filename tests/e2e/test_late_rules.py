"""Rules of others that drop mitml4's own packets are named, also those that are loaded while a
session runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mitml4.lab.network import LAN, SERVER_V4, WAN, LabNetwork
from tests.e2e.conftest import Interception, poll
from tests.e2e.others import ALSO_OPEN, PORT, Router, chain, comes_to


@pytest.fixture(scope="module", autouse=True)
def servers(serve) -> None:
    for port in (PORT, ALSO_OPEN):
        listen = f"TCP6-LISTEN:{port},fork,reuseaddr,ipv6only=0,backlog=64"
        serve("socat", listen, "EXEC:cat", port=port)


@pytest.fixture
def session(intercept) -> Interception:
    return intercept(iface=WAN)


@pytest.fixture
def router(lab: LabNetwork) -> Iterator[Router]:
    with ExitStack() as undo:
        yield Router(lab.router, undo)


NO_LOOPBACK = "ct state established accept\nmeta l4proto { icmp, icmpv6 } accept"
DROPPED = "rules of this host now drop intercepted connections"
AGAIN = "new connections are intercepted again"


class Told:
    """Waits until a session has written a text once more."""

    def __init__(self, session: Interception) -> None:
        self.session = session
        self.seen = len(session.said())

    def wait(self, text: str) -> str:
        found = poll(lambda: self.session.said()[self.seen :].partition(text)[2], text)
        self.seen = len(self.session.said())
        return found


def pass_by(lab: LabNetwork, session: Interception) -> None:
    watch = session.watch()
    for host in (lab.client, lab.router):
        comes_to(host, "echo")
    assert session.flows(watch.since) == []


@pytest.mark.parametrize("rules", [NO_LOOPBACK, f"{NO_LOOPBACK}\nip saddr 127.0.0.0/8 accept"])
def test_connections_pass_by_while_rules_that_were_loaded_late_drop_them(
    lab, router, session, rules: str
) -> None:
    comes_to(lab.client, "echo")
    told = Told(session)
    with ExitStack() as late:
        Router(router.namespace, late).load(chain("input", rules, policy="drop"))
        comes_to(lab.client, "echo")  # from the time before it was noticed: by SYNs that come again
        assert "nft insert rule inet theirs c ct mark" in told.wait(DROPPED)
        pass_by(lab, session)
    told.wait(AGAIN)
    watch = session.watch()
    comes_to(lab.client, "echo")
    watch.flows(2)


def test_rules_of_iptables_legacy_are_noticed_by_what_they_drop(lab, router, session) -> None:
    """The kernel does not report them."""
    told = Told(session)
    router.namespace.run("iptables-legacy", "-A", "INPUT", "-i", "lo", "-j", "DROP")
    comes_to(lab.client, "TIMEOUT", (SERVER_V4,))
    told.wait(DROPPED)
    pass_by(lab, session)
    router.namespace.run("iptables-legacy", "-F", "INPUT")
    told.wait(AGAIN)
    watch = session.watch()
    comes_to(lab.client, "echo")
    watch.flows(2)


def test_with_a_block_nothing_passes_by_unseen(lab, router, intercept) -> None:
    told = Told(intercept("--block", "blocked.example", iface=WAN))
    with ExitStack() as late:
        Router(router.namespace, late).load(chain("input", NO_LOOPBACK, policy="drop"))
        assert "time out, since --block" in told.wait(DROPPED)
        comes_to(lab.client, "TIMEOUT")
    told.wait(AGAIN)
    comes_to(lab.client, "echo")


def test_a_chain_that_is_loaded_late_and_drops_what_is_sent_is_named(router, session) -> None:
    told = Told(session)
    rules = "ct state established accept\noif lo accept\nmeta l4proto icmpv6 accept"
    with ExitStack() as late:
        Router(router.namespace, late).load(chain("output", rules, policy="drop"))
        told.wait("inet theirs c drops by policy what this host sends")


def test_an_address_that_has_gone_is_not_taken_for_a_rule_that_drops(lab, intercept):
    """As with a network of Docker's that is removed: its address and its rules go together."""
    told = Told(intercept(iface=LAN))
    with ExitStack() as early:
        Router(lab.router, early).ip(f"addr add 203.0.113.1/24 dev {LAN}")
        client = Router(lab.client, early)
        client.ip("addr add 203.0.113.2/24 dev eth0")
        client.ip(f"route add {SERVER_V4} via 203.0.113.1")
        comes_to(lab.client, "echo", (SERVER_V4,))  # accepted at the address that goes
    rules = "ct state established accept\noif lo accept\nmeta l4proto icmpv6 accept"
    first = chain("output", rules, policy="drop")
    with ExitStack() as late:
        Router(lab.router, late).load(first)
        told.wait("inet theirs c drops by policy")
        second = f"table inet theirs {{ {first.replace('chain c', 'chain d')} }}"
        lab.router.run("nft", "-f", "-", input=second)
        told.wait("inet theirs d drops by policy")  # so all is said of the first change
    assert DROPPED not in told.session.said()


def test_a_chain_that_drops_answers_alone_is_named(lab, router, intercept, tmp_path) -> None:
    """What it drops is no first packet, and does not pass it with a session."""
    router.load(chain("forward", f"ip saddr {SERVER_V4} drop"))
    intercept(iface=WAN)
    assert "note: what inet theirs c would drop" in (tmp_path / "stderr.txt").read_text()


def test_a_chain_that_drops_what_is_sent_is_named_with_its_remedy(
    lab, router, intercept, tmp_path
) -> None:
    """Our connections to servers would be dropped, too."""
    rules = ("ct state established accept", "oif lo accept", "meta l4proto icmpv6 accept")
    router.load(chain("output", "\n".join(rules), policy="drop"))
    session = intercept(iface=LAN)
    policy = session.said().partition("inet theirs c drops by policy")[2]
    comes_to(lab.client, "TIMEOUT")
    router.namespace.run(*policy.partition("time out: ")[2].splitlines()[0].split())
    comes_to(lab.client, "echo")
    restore(router, *rules)


def test_a_rule_that_drops_what_is_sent_is_named_with_its_remedy(lab, router, intercept) -> None:
    rules = ("ct state established accept", f"tcp dport {PORT} drop")
    router.load(chain("output", "\n".join(rules)))
    session = intercept(iface=LAN)
    assert f"inet theirs c: {rules[1]}" in session.said()
    comes_to(lab.client, "TIMEOUT")
    router.namespace.run(*remedy(session))
    comes_to(lab.client, "echo")
    restore(router, *rules)


def test_connections_pass_by_while_a_rule_drops_what_the_session_s_user_sends(
    lab, router, intercept
) -> None:
    """The user is another one than root, who has started it."""
    rules = ("ct state established accept", "meta skuid != 0 drop")
    router.load(chain("output", "\n".join(rules)))
    session = intercept(iface=LAN)
    told = Told(session)
    told.seen = 0
    assert "inet theirs c: meta skuid != 0 drop" in session.said()
    told.wait(DROPPED)
    pass_by(lab, session)
    router.namespace.run(*remedy(session))
    told.wait(AGAIN)
    watch = session.watch()
    comes_to(lab.client, "echo")
    watch.flows(2)
    restore(router, *rules)


def restore(router: Router, *rules: str) -> None:
    """Take a remedy back: a session is to leave the rules as it has found them."""
    again = "".join(f"add rule inet theirs c {rule}\n" for rule in rules)
    router.namespace.run("nft", "-f", "-", input=f"flush chain inet theirs c\n{again}")


def remedy(session: Interception) -> list[str]:
    """The command that a note names."""
    return session.said().partition("mitml4 marks: ")[2].splitlines()[0].split()
