"""What stands in the way is found, and the remedy that is named takes it away."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest

from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import HostRules, RulesHiddenError
from mitml4.net.identity import Identity
from mitml4.net.rules.ruleset import policy_routes
from mitml4.net.tools import environment
from mitml4.net.trial.rehearsal import Outcome, Settings, Stage
from mitml4.session.doctor import surroundings
from mitml4.session.doctor.check import Check
from mitml4.session.doctor.surroundings import (
    PolicyRoutes,
    Rehearsals,
    check_bridges,
    check_input,
    check_interceptors,
    check_leftovers,
    check_loopback,
    check_reverse_path,
    check_surroundings,
)

DROPPING = """
table inet wall {
  chain door {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    meta l4proto icmpv6 accept
    iif lo accept
  }
}
"""
DROPPING_BUT_REDIRECTED = DROPPING.replace("iif lo", "ct status dnat accept\n    iif lo")
ENDING_IN_A_REJECT = DROPPING.replace("policy drop", "policy accept").replace(
    "iif lo accept", "iif lo accept\n    reject"
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
BRIDGE = "link add br0 type bridge\n"


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


@pytest.mark.parametrize(
    "rules", [DROPPING, DROPPING_BUT_REDIRECTED, ENDING_IN_A_REJECT], ids=["drop", "dnat", "reject"]
)
def test_a_wall_is_named_and_its_remedy_opens_it(on_host, rules: str) -> None:
    first, second = on_host(before_and_after(lambda: check_input(rehearsals())), rules=rules)
    assert (first.state, second.state) == ("fail", "ok")
    assert "inet wall door" in first.found
    assert ("its policy is drop" in first.found) == ("policy drop" in rules)
    assert ("what TPROXY hands over" in first.found) == (rules == DROPPING_BUT_REDIRECTED)


def test_a_wall_that_firewalld_owns_is_made_free_first(on_host) -> None:
    wall = DROPPING_BUT_REDIRECTED.replace("table inet wall {", "table inet firewalld {")

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


def test_rules_that_only_root_sees_are_not_judged(on_host) -> None:
    check = on_host(lambda: check_input(Rehearsals(Settings.read(), None)))
    assert (check.state, check.remedy) == ("skip", ("sudo mitml4 doctor",))


def test_rules_that_cannot_be_read_are_not_said_to_be_roots() -> None:
    trouble = MachineError("nft: it is broken", hint="nft list ruleset")
    check = check_input(Rehearsals(Settings.read(), None, trouble))
    assert (check.found, check.remedy) == ("nft: it is broken", ("nft list ruleset",))


def test_rules_that_cannot_be_copied_are_not_judged(on_host, monkeypatch) -> None:
    def fail(_: HostRules) -> int:
        raise MachineError("the rules cannot be copied")

    monkeypatch.setattr(HostRules, "copy", fail)
    check = on_host(lambda: check_input(rehearsals()), rules=DROPPING)
    assert (check.state, check.found) == ("skip", "the rules cannot be copied")


# --- settings ----------------------------------------------------------------------------------


STRICT = {
    f"ipv4.conf.{place}.{name}": 1
    for place in ("all", "default")
    for name in ("rp_filter", "src_valid_mark")
}


def test_a_strict_reverse_path_with_marks_is_tried_and_found_to_do_no_harm(on_host) -> None:
    check = on_host(lambda: check_reverse_path(rehearsals()), sysctls=STRICT)
    assert check.state == "ok"
    assert "rp_filter is strict, src_valid_mark is set" in check.found


class Staged(Rehearsals):
    """A kernel on which a session comes in only without settings."""

    def try_out(self, *stages: Stage) -> list[Outcome]:
        fails = Outcome("none", "IPv4: it did not arrive")
        return [fails if stage.settings else Outcome("tproxy") for stage in stages]


@pytest.mark.parametrize(
    ("marks", "remedy"),
    [
        (("eth0", "wg0"), ("eth0.src_valid_mark=0", "wg0.src_valid_mark=0")),
        ((), ("all.rp_filter=2",)),
    ],
)
def test_a_reverse_path_that_does_harm_is_named(marks: tuple[str, ...], remedy) -> None:
    settings = Settings(rp_filter={"eth0": 1}, src_valid_mark=frozenset(marks))
    check = check_reverse_path(Staged(settings, None))
    assert check.state == "fail"
    assert "it did not arrive" in check.found
    settled = [command.partition("sysctl -w net.ipv4.conf.")[2] for command in check.remedy]
    assert tuple(settled) == remedy


def test_a_loopback_that_is_down_is_named(on_host) -> None:
    check = before_and_after(lambda: check_loopback(Settings.read()))
    first, second = on_host(check, lo="down")
    assert (first.state, second.state) == ("fail", "ok")


FILTERED = {"bridge.bridge-nf-call-iptables": 1, "bridge.bridge-nf-call-ip6tables": 1}


def test_bridged_packets_that_iptables_sees_are_named(on_host) -> None:
    first, second = on_host(before_and_after(check_bridges), commands=BRIDGE, sysctls=FILTERED)
    assert (first.state, second.state) == ("fail", "ok")
    assert "br0" in first.found
    assert len(first.remedy) == 1


def test_without_bridges_the_filter_does_not_matter(on_host) -> None:
    assert on_host(check_bridges, sysctls=FILTERED).state == "ok"


# --- what others, and we, have left ------------------------------------------------------------


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


LEFT = "".join(f"{add}\n" for add, _ in policy_routes(Identity(5)))


def leftovers() -> Check:
    return check_leftovers(HostRules.read(), PolicyRoutes.read(), RulesHiddenError())


def test_the_routes_of_a_session_that_is_gone_are_named_and_removed(on_host) -> None:
    first, second = on_host(before_and_after(leftovers), commands=LEFT)
    assert (first.state, second.state) == ("fail", "ok")
    assert "mitml4_5" in first.found
    assert first.remedy[0].endswith("mitml4 cleanup")


def test_the_routes_of_a_session_that_runs_are_not_leftovers(on_host) -> None:
    def work() -> Check:
        with subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, text=True) as guard:
            guard.stdin.write("add table inet mitml4_5 { flags owner; }\n")
            guard.stdin.flush()
            while "inet mitml4_5" not in HostRules.read().tables:
                assert guard.poll() is None
            return leftovers()

    check = on_host(work, commands=LEFT)
    assert check.state == "ok"
    assert check.found == "none; sessions that run: 1"


def test_only_root_can_tell_whether_a_session_still_runs(on_host) -> None:
    check = on_host(
        lambda: check_leftovers(None, PolicyRoutes.read(), RulesHiddenError()), commands=LEFT
    )
    assert (check.state, check.remedy) == ("skip", ("sudo mitml4 doctor",))


def test_our_own_routes_are_nobody_elses(on_host) -> None:
    assert on_host(interceptors, commands=LEFT).state == "ok"


def test_without_ip_nothing_is_said(monkeypatch) -> None:
    def missing(*_: str) -> list[str]:
        raise AssertionError("ip was asked")

    monkeypatch.setattr(surroundings, "_ip", missing)
    monkeypatch.setattr(surroundings, "read_sysctl", lambda _: "0")
    stands = Rehearsals(Settings.read(), None, missing="ip: not installed")
    states = {check.name: check.state for check in check_surroundings(stands)}
    assert set(states.values()) <= {"ok", "skip"}
    assert states["leftovers of mitml4"] == "skip"
