"""What stands in the way is found, and the remedy that is named takes it away."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest

from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import HostRules, RulesHiddenError
from mitml4.net.tools import environment
from mitml4.net.trial.rehearsal import Settings
from mitml4.session.doctor import environment as host
from mitml4.session.doctor.check import Check
from mitml4.session.doctor.environment import (
    PolicyRoutes,
    Rehearsals,
    check_environment,
    check_forward_firewall,
    check_forwarding,
    check_input,
    check_interceptors,
    check_loopback,
)

DROPPING = """
table inet wall {
  chain door {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    meta l4proto icmpv6 accept
    iif lo ip saddr 127.0.0.0/8 accept
  }
}
"""
ENDING_IN_A_REJECT = DROPPING.replace("policy drop", "policy accept").replace(
    "iif lo ip", "iif lo tcp dport 53 accept\n    reject with tcp reset\n    iif lo ip"
)
HOPELESS = (
    DROPPING
    + """
table inet early {
  chain c { type filter hook prerouting priority filter; iif != lo drop; }
}
"""
)
GRABBING = """
table ip grab {
  chain c { type nat hook prerouting priority dstnat; tcp dport 443 redirect to :8080; }
}
"""
FOREIGN_ROUTE = """\
rule add fwmark 0x1 lookup 100
route add local default dev lo table 100
"""


def rehearsals() -> Rehearsals:
    return Rehearsals(Settings.read(), HostRules.read())


def take(remedy: Iterable[str]) -> None:
    """What a user would do."""
    for command in remedy:
        argv = [word for word in shlex.split(command, comments=True) if word != "sudo"]
        if argv[0] == "mitml4":
            argv[:1] = [sys.executable, "-m", "mitml4"]
        subprocess.run(argv, check=True, capture_output=True, env=environment())


def before_and_after(check: Callable[[], Check]) -> Callable[[], tuple[Check, Check]]:
    """A check, and the same once its remedy has been taken."""

    def work() -> tuple[Check, Check]:
        first = check()
        take(first.remedy)
        return first, check()

    return work


# --- input firewalls ---------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [DROPPING, ENDING_IN_A_REJECT], ids=["drop", "reject"])
def test_a_wall_is_named_and_its_remedy_opens_it(on_host, rules: str) -> None:
    first, second = on_host(before_and_after(lambda: check_input(rehearsals())), rules=rules)
    assert (first.state, second.state) == ("fail", "ok")
    assert "inet wall door" in first.found
    assert ("its policy is drop" in first.found) == ("policy drop" in rules)


@pytest.mark.parametrize("more", ["iif lo accept", "ct status dnat accept"], ids=["ufw", "dnat"])
def test_a_wall_with_the_usual_doors_is_none(on_host, more: str) -> None:
    rules = DROPPING.replace("iif lo", f"{more}\n    iif lo")
    check = on_host(lambda: check_input(rehearsals()), rules=rules)
    assert (check.state, check.found) == ("ok", "inet wall door: intercepted connections came in")


def test_a_wall_that_firewalld_owns_is_made_free_first(on_host) -> None:
    wall = DROPPING.replace("table inet wall {", "table inet firewalld {")

    def work() -> Check:
        argv = ("nft", "--handle", "--stateless", "list", "ruleset")
        listing = subprocess.check_output(argv, text=True, env=environment())
        owned = HostRules(listing.replace("{ # handle 1\n", "{ # handle 1\n\tflags owner\n", 1))
        return check_input(Rehearsals(Settings.read(), owned))

    check = on_host(work, rules=wall)
    assert "inet firewalld door" in check.found
    free, restart, opening = check.remedy
    assert "NftablesTableOwner=no" in free
    assert "restart firewalld" in restart
    assert "nft insert rule inet firewalld door" in opening


def test_a_wall_that_no_rule_opens_is_told_as_such(on_host) -> None:
    check = on_host(lambda: check_input(rehearsals()), rules=HOPELESS)
    assert check.state == "fail"
    assert "no simple rule" in check.found
    assert check.remedy[0].endswith("nft list ruleset")


def test_a_host_without_rules_has_no_wall(on_host) -> None:
    assert on_host(lambda: check_input(rehearsals())).found == "there is none"


def test_a_wall_is_not_blamed_for_what_somebody_else_takes(on_host) -> None:
    wall = DROPPING.replace("policy drop", "policy accept")
    check = on_host(lambda: check_input(rehearsals()), rules=wall + GRABBING)
    assert check.state == "ok"


def test_a_wall_is_not_blamed_for_a_loopback_that_is_down(on_host) -> None:
    check = on_host(lambda: check_input(rehearsals()), rules=DROPPING, lo="down")
    assert check.state == "skip"


def test_rules_that_only_root_sees_are_not_assessed(on_host) -> None:
    check = on_host(lambda: check_input(Rehearsals(Settings.read(), None)))
    assert (check.state, check.remedy) == ("skip", (RulesHiddenError().hint,))


def test_rules_that_cannot_be_read_are_not_said_to_be_roots() -> None:
    trouble = MachineError("nft: it is broken", hint="nft list ruleset")
    check = check_input(Rehearsals(Settings.read(), None, trouble))
    assert (check.found, check.remedy) == ("nft: it is broken", ("nft list ruleset",))


def test_rules_that_cannot_be_copied_are_not_assessed(on_host, monkeypatch) -> None:
    def fail(_: HostRules) -> int:
        raise MachineError("the rules cannot be copied")

    monkeypatch.setattr(HostRules, "copy", fail)
    check = on_host(lambda: check_input(rehearsals()), rules=DROPPING)
    assert (check.state, check.found) == ("skip", "the rules cannot be copied")


# --- forward firewalls


def test_a_chain_that_drops_answers_by_themselves_is_named(on_host) -> None:
    rules = "table ip wall {{\n chain c {{\n type filter hook forward priority 0\n{}\n }}\n}}\n"

    def check() -> Check:
        return check_forward_firewall(HostRules.read(), RulesHiddenError())

    dropping = on_host(check, rules=rules.format("ip saddr 192.0.2.1 drop"))
    assert (dropping.state, "ip wall c" in dropping.found) == ("skip", True)
    assert on_host(check, rules=rules.format("ip daddr 192.0.2.1 ct state new drop")).state == "ok"
    assert check_forward_firewall(None, RulesHiddenError()).state == "skip"


# --- settings ----------------------------------------------------------------------------------


def test_a_loopback_that_is_down_is_named(on_host) -> None:
    check = before_and_after(lambda: check_loopback(Settings.read()))
    first, second = on_host(check, lo="down")
    assert (first.state, second.state) == ("fail", "ok")


FORWARDING = {"ipv4.ip_forward": 1, "ipv6.conf.all.forwarding": 1}


@pytest.mark.parametrize(
    ("off", "versions"),
    [
        ((), ""),
        (("ipv4.ip_forward",), "IPv4"),
        (("ipv6.conf.all.forwarding",), "IPv6"),
        (tuple(FORWARDING), "IPv4 and IPv6"),
    ],
)
def test_a_host_that_does_not_forward_is_told_what_that_means(on_host, off, versions) -> None:
    sysctls = FORWARDING | dict.fromkeys(off, 0)
    first, second = on_host(before_and_after(check_forwarding), sysctls=sysctls)
    assert (first.state, second.state) == ("skip" if off else "ok", "ok")
    assert not off or f"does not forward {versions}:" in first.found


# --- what others have left ------------------------------------------------------------


def interceptors() -> Check:
    return check_interceptors(HostRules.read(), PolicyRoutes.read(), RulesHiddenError())


def test_rules_and_routes_that_intercept_are_named_and_removed(on_host) -> None:
    first, second = on_host(before_and_after(interceptors), rules=GRABBING, commands=FOREIGN_ROUTE)
    assert (first.state, second.state) == ("fail", "ok")
    assert "ip grab c: tcp dport 443 redirect to :8080" in first.found
    assert "table 100" in first.found
    assert len(first.remedy) == 3


def test_routes_are_seen_without_privilege(on_host) -> None:
    check = on_host(
        lambda: check_interceptors(None, PolicyRoutes.read(), RulesHiddenError()),
        commands=FOREIGN_ROUTE,
    )
    assert check.state == "fail"


def test_what_cannot_be_seen_is_not_said_to_be_fine(on_host) -> None:
    assert (
        on_host(lambda: check_interceptors(None, PolicyRoutes.read(), RulesHiddenError())).state
        == "skip"
    )


def test_without_ip_nothing_is_said(monkeypatch) -> None:
    def missing(*_: str) -> list[str]:
        raise AssertionError("ip was asked")

    monkeypatch.setattr(host, "_ip", missing)
    monkeypatch.setattr(host, "read_sysctl", lambda _: "0")
    stands = Rehearsals(Settings.read(), None, missing="ip: not installed")
    states = {check.name: check.state for check in check_environment(stands)}
    assert set(states.values()) <= {"ok", "skip"}
