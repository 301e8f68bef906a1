"""What the kernel can, each feature by itself."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mitml4.net.isolation import enter_user_namespace
from mitml4.net.namespace.userns import NamespacesRefusedError
from mitml4.net.trial.child import run_in_child
from mitml4.net.trial.rehearsal import Outcome
from mitml4.session.doctor import kernel
from mitml4.session.doctor.check import Check
from mitml4.session.doctor.kernel import check_features, check_user_namespaces

FINE = Outcome("works")
HELD = "held connections"


def features(bare: Outcome = FINE, missing: str | None = None) -> dict[str, Check]:
    return {check.name: check for check in check_features(bare, missing)}


def states(checks: dict[str, Check]) -> list[str]:
    return [check.state for check in checks.values()]


def test_this_kernel_has_them(on_host) -> None:
    checks = on_host(features)
    assert list(checks) == ["nf_tables", "owner tables", HELD, "TPROXY", "redirect", "cgroups"]
    assert states(checks) == ["ok"] * 6
    assert "connections came through" in checks[HELD].found


def test_nothing_is_tried_without_tools() -> None:
    checks = features(Outcome("untried"), "nft: not installed")
    assert states(checks) == ["skip"] * 6
    assert {check.found for check in checks.values()} == {"nft: not installed"}


def test_rules_that_load_and_do_not_work_are_a_failure(on_host) -> None:
    checks = on_host(lambda: features(Outcome("fails", "it did not arrive")))
    assert states(checks) == ["ok", "ok", "fail", "ok", "ok", "ok"]
    assert checks[HELD].found == "it did not arrive"
    assert "nf_conntrack_netlink" in checks[HELD].remedy[0]


def test_a_session_that_could_not_be_tried_proves_nothing(on_host) -> None:
    checks = on_host(lambda: features(Outcome("untried", "no veth")))
    assert states(checks) == ["ok"] * 6
    assert "came through" not in checks[HELD].found


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        ("chain c { type route hook input priority 0; }", "modprobe --all nf_some"),
        ("flags no_such_flag;", "install"),
    ],
    ids=["the kernel lacks it", "nft lacks it"],
)
def test_what_is_missing_is_named_with_its_remedy(on_host, monkeypatch, body, remedy) -> None:
    missing = kernel._Feature("some", body, "it is for tests", "modprobe --all nf_some")
    monkeypatch.setattr(kernel, "_FEATURES", (missing,))
    check = on_host(features)["some"]
    assert check.state == "fail"
    assert check.found.startswith("nft: ")
    assert remedy in check.remedy[0]


def test_users_get_namespaces_or_it_is_said_why(on_host) -> None:
    assert on_host(check_user_namespaces).state == "ok"


def test_a_limit_of_zero_is_named_with_its_remedy() -> None:
    def work() -> Check:
        enter_user_namespace(root=True)
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        return check_user_namespaces()

    (check,) = run_in_child(work, timeout_s=30)
    assert check.state == "fail"
    assert "user.max_user_namespaces is 0" in check.found
    assert check.remedy == ("sysctl -w user.max_user_namespaces=10000",)


def test_a_refusal_comes_through_a_pipe_as_it_was() -> None:
    refusal = NamespacesRefusedError("no", "sudo yes", hint="say yes")
    copy = pickle.loads(pickle.dumps(refusal))
    assert (copy.message, copy.command, copy.hint) == ("no", "sudo yes", "say yes")


def test_a_table_that_outlives_its_process_is_no_owner_table(on_host, monkeypatch) -> None:
    kept = kernel._Feature("owner tables", "", "it goes", "uname -r")
    monkeypatch.setattr(kernel, "_FEATURES", (kept,))
    check = on_host(features)["owner tables"]
    assert (check.state, check.remedy) == ("fail", ("uname -r",))
    assert "stays" in check.found
