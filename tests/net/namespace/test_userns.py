"""Why a machine makes no namespaces, told apart."""

from __future__ import annotations

import errno
import os

import pytest

from mitml4.errors import ExitCode
from mitml4.net import capabilities
from mitml4.net.namespace.userns import explain_powerless, explain_refusal


def refusal(code: int, **sysctls: str):
    settings = {name.replace("__", "/"): value for name, value in sysctls.items()}
    return explain_refusal(OSError(code, os.strerror(code)), settings.get)


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            refusal(errno.ENOSPC, user__max_user_namespaces="0"),
            "user.max_user_namespaces is 0",
            "sudo sysctl -w user.max_user_namespaces=",
        ),
        (
            refusal(errno.ENOSPC, user__max_user_namespaces="9", user__max_net_namespaces="0"),
            "user.max_net_namespaces is 0",
            "sudo sysctl -w user.max_net_namespaces=",
        ),
        (refusal(errno.ENOSPC, user__max_user_namespaces="9"), "as many namespaces", "sysctl -a"),
        (
            refusal(errno.EPERM, kernel__unprivileged_userns_clone="0"),
            "kernel.unprivileged_userns_clone is 0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            refusal(errno.EACCES, kernel__apparmor_restrict_unprivileged_userns="1"),
            "AppArmor",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            refusal(
                errno.EPERM,
                kernel__unprivileged_userns_clone="1",
                kernel__apparmor_restrict_unprivileged_userns="0",
            ),
            "seccomp",
            "docker run --security-opt seccomp=unconfined",
        ),
        (refusal(errno.EUSERS), "nested too deeply", "leave"),
        (refusal(errno.EINVAL), "CONFIG_USER_NS", "sudo mitml4 run"),
    ],
)
def test_each_cause_has_its_own_remedy(error, message: str, hint: str) -> None:
    assert message in error.message
    assert hint in error.hint
    assert error.exit_code == ExitCode.CANNOT


def test_a_namespace_without_power_is_apparmors_doing(monkeypatch) -> None:
    monkeypatch.setattr(capabilities, "has", lambda _: False)
    restricted = {"kernel/apparmor_restrict_unprivileged_userns": "1"}
    assert "AppArmor" in explain_powerless(restricted.get).message
    assert explain_powerless(lambda _: None) is None


def test_with_power_there_is_nothing_to_explain(monkeypatch) -> None:
    monkeypatch.setattr(capabilities, "has", lambda _: True)
    restricted = {"kernel/apparmor_restrict_unprivileged_userns": "1"}
    assert explain_powerless(restricted.get) is None
