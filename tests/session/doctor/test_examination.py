"""What the checks come to. The whole of it, on hosts of all kinds, is in e2e/run/test_doctor.py."""

from __future__ import annotations

import pytest

from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import HostRules, RulesHiddenError
from mitml4.net.namespace.namespace import Namespace
from mitml4.net.trial.rehearsal import Outcome, Settings, Stage
from mitml4.session.doctor.check import Check
from mitml4.session.doctor.environment import Rehearsals
from mitml4.session.doctor.examination import _assess_intercept, _assess_run
from mitml4.session.doctor.prerequisites import Power

SETTINGS = Settings()
ROOT = Power(True, HostRules(""))
USER = Power(False, None)


class Always(Rehearsals):
    """Every session comes to the same."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(SETTINGS, None)
        self.outcome = outcome

    def try_out(self, *stages: Stage) -> list[Outcome]:
        return [self.outcome] * len(stages)


def failing(name: str, *remedy: str) -> Check:
    return Check(group="environment", name=name, state="fail", found="bad", remedy=remedy)


@pytest.mark.parametrize(
    ("outcome", "power", "state", "found"),
    [
        (Outcome("works"), ROOT, "ok", "ready"),
        (Outcome("fails", "why"), ROOT, "fail", "not at all: why"),
        (Outcome("untried", "why"), ROOT, "skip", "it would start, untested: why"),
        (
            Outcome("works"),
            USER,
            "fail",
            "not as this user, except in their own containers: it needs root, "
            "with which it would work as far as can be seen",
        ),
        (
            Outcome("fails", "why"),
            USER,
            "fail",
            "not as this user, except in their own containers: it needs root",
        ),
    ],
)
def test_the_verdict_on_intercept(outcome, power, state: str, found: str, monkeypatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    verdict = _assess_intercept(power, Always(outcome), [], [])
    assert (verdict.state, verdict.found) == (state, found)
    assert bool(verdict.remedy) == (state == "fail")


def test_root_of_a_container_needs_no_sudo(monkeypatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    verdict = _assess_intercept(USER, Always(Outcome("untried")), [], [])
    assert verdict.found == "not here: root lacks power over this network, as in a container"
    assert verdict.remedy == ("docker run --cap-add NET_ADMIN --cap-add NET_RAW IMAGE",)
    assert RulesHiddenError().hint == verdict.remedy[0]


def test_only_what_blocks_is_to_be_remedied() -> None:
    environment = [
        failing("other interceptors", "a"),
        failing("loopback", "b"),
        failing("input firewall", "b"),
    ]
    verdict = _assess_intercept(ROOT, Always(Outcome("fails", "why")), [], environment)
    assert verdict.remedy == ("b",)


def test_a_missing_tool_comes_before_anything_else() -> None:
    verdict = _assess_intercept(
        USER, Always(Outcome("untried")), [failing("nft", "install it")], []
    )
    assert (verdict.found, verdict.remedy) == ("not at all: nft: bad", ("install it",))


def test_what_run_cannot_do_is_told_with_what_failed_before(monkeypatch) -> None:
    def refuse() -> None:
        raise MachineError("no")

    monkeypatch.setattr(Namespace, "open", refuse)
    verdict = _assess_run([failing("user namespaces", "allow it")])
    assert (verdict.state, verdict.found) == ("fail", "not at all: no")
    assert verdict.remedy == ("allow it",)
    assert _assess_run([]).remedy
