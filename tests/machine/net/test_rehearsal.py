"""What a session would come to, where the tests decide on rules and settings."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from mitml4.lab.snapshot import take_snapshot
from mitml4.net.firewall.host_rules import HostRules
from mitml4.net.isolation import enter_network
from mitml4.net.tools import environment
from mitml4.net.trial import rehearsal
from mitml4.net.trial.child import run_in_child
from mitml4.net.trial.rehearsal import Outcome, Settings, Stage, rehearse

TIMEOUT_S = 60

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
ENDING_IN_A_DROP = DROPPING.replace("policy drop", "policy accept").replace(
    "saddr 127.0.0.0/8 accept", "saddr 127.0.0.0/8 accept\n    drop"
)


@pytest.fixture(autouse=True)
def nobody_is_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer than a user would wait."""
    monkeypatch.setattr(rehearsal, "_TIMEOUT_S", TIMEOUT_S)


def run(*argv: str, given: str = "") -> None:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr


def set_sysctl(name: str, value: int) -> None:
    Path("/proc/sys/net", name).write_text(str(value))


def outcomes(
    *stages: str, rules: str = "", sysctls: dict[str, int] | None = None, lo: str = "up"
) -> list[Outcome]:
    """Rehearse on a host with these rules and settings, which must stay as it was.

    A stage is: bare, settings, or the commands that are run on it (`;` between them).
    """

    def work() -> tuple[str, str, list[Outcome]]:
        enter_network()
        run("ip", "link", "set", "lo", lo)
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        for name, value in (sysctls or {}).items():
            set_sysctl(name, value)
        run("nft", "-f", "-", given=rules)
        before = take_snapshot()
        settings, there = Settings.read(), HostRules.read()
        result = rehearse(*(stage(each, settings, there) for each in stages))
        return before, take_snapshot(), result

    before, after, result = run_in_child(work, timeout_s=2 * TIMEOUT_S)[0]
    assert after == before
    return result


def stage(what: str, settings: Settings, rules: HostRules) -> Stage:
    match what:
        case "bare":
            return Stage()
        case "settings":
            return Stage(settings)
        case _:
            return Stage(settings, rules, tuple(filter(None, what.split(";"))))


def ways(*stages: str, **host: Any) -> list[str]:
    return [outcome.way for outcome in outcomes(*stages, **host)]


def test_where_nothing_is_in_the_way_it_works() -> None:
    assert outcomes("bare", "settings", ";") == [Outcome("works")] * 3


@pytest.mark.parametrize("rules", [DROPPING, ENDING_IN_A_DROP], ids=["policy", "rule"])
def test_a_wall_lets_nothing_in_until_it_is_opened(rules: str) -> None:
    opening = "nft insert rule inet wall door ct mark and 0xff000000 == 0x4d000000 accept"
    closed, opened, without = outcomes(";", opening, "settings", rules=rules)
    assert (closed.way, opened.way, without.way) == ("fails", "works", "works")
    assert "do not reach mitml4" in closed.reason


def test_rules_that_cannot_be_copied_are_counted() -> None:
    odd = DROPPING.replace("iif lo", 'iif "eth0" accept\n    iif lo')
    (outcome,) = outcomes(";", rules=odd)
    assert outcome.lines_left_out == 1


def test_strict_reverse_paths_with_marks_do_not_hurt() -> None:
    strict = {
        f"ipv4/conf/{place}/{name}": 1
        for place in ("all", "default", "eth0")
        for name in ("rp_filter", "src_valid_mark")
    }
    assert ways("settings", sysctls=strict) == ["works"]


def test_a_loopback_that_is_down_ends_it_only_where_that_is_so() -> None:
    there, not_there = outcomes("settings", "bare", lo="down")
    assert (there.way, not_there.way) == ("fails", "works")


def test_a_host_without_ipv6_is_tried_without() -> None:
    assert ways("settings", sysctls={"ipv6/conf/all/disable_ipv6": 1}) == ["works"]


def test_a_stage_that_cannot_be_set_says_nothing_about_the_others() -> None:
    failed, fine = outcomes("ip link set nothing up", ";")
    assert failed.way == "untried"
    assert "nothing" in failed.reason
    assert fine.way == "works"


def test_a_child_gets_the_settings_of_its_host() -> None:
    """Which are not those that a new network starts with."""

    def work() -> list[str]:
        enter_network()
        Settings(others={"net/ipv4/conf/all/rp_filter": "1"}).apply()
        return [Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip()]

    assert run_in_child(work, timeout_s=2 * TIMEOUT_S) == [["1"]]
