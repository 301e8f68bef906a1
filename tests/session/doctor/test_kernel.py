"""What the checks of the kernel's features come to. On real hosts: e2e/run/test_doctor.py."""

from __future__ import annotations

import pytest

from mitml4.errors import MachineError
from mitml4.net.trial.rehearsal import Outcome
from mitml4.session.doctor import kernel
from mitml4.session.doctor.check import Check


def checks(monkeypatch: pytest.MonkeyPatch, complaints: dict[str, str]) -> dict[str, Check]:
    monkeypatch.setattr(kernel, "run_in_child", lambda *_, **__: [complaints])
    return {each.name: each for each in kernel.check_features(Outcome("works"), None)}


def test_cgroups_need_the_kernel_and_a_hierarchy_that_nft_can_name(monkeypatch) -> None:
    refusal = "nft: Error: Could not process rule"
    found = checks(monkeypatch, {"cgroups": refusal})["cgroups"]
    assert (found.state, found.found) == ("fail", refusal)
    assert "nft_socket" in found.remedy[0]

    def missing() -> None:
        raise MachineError("this host has no cgroups of version 2")

    monkeypatch.setattr(kernel, "hierarchy", missing)
    found = checks(monkeypatch, {})["cgroups"]
    assert (found.state, found.found) == ("skip", "this host has no cgroups of version 2")
    assert "mount -t cgroup2" in found.remedy[0]
    monkeypatch.setattr(kernel, "hierarchy", lambda: None)
    assert checks(monkeypatch, {})["cgroups"].state == "ok"
