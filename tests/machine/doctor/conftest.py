"""Networks of the tests' own, in which a check finds what a test has put there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from mitml4.net.isolation import enter_network
from mitml4.net.tools import environment
from mitml4.net.trial import rehearsal
from mitml4.net.trial.child import run_in_child
from mitml4.session.doctor import kernel, prerequisites

TIMEOUT_S = 60


def run(*argv: str, given: str = "") -> str:
    done = subprocess.run(argv, input=given, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def nobody_is_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes longer for what is tried than a user would wait."""
    for module in (rehearsal, kernel, prerequisites):
        monkeypatch.setattr(module, "_TIMEOUT_S", TIMEOUT_S)


@pytest.fixture
def on_host() -> Callable[..., Any]:
    """Do work in a new network, after rules (nft), commands (ip) and settings have been put there;
    its result, which has to survive being pickled."""

    def on_host(
        work: Callable[[], Any],
        *,
        rules: str = "",
        commands: str = "",
        sysctls: dict[str, int] | None = None,
        lo: str = "up",
    ) -> Any:
        def inside() -> Any:
            enter_network()
            run("ip", "link", "set", "lo", lo)
            run("ip", "-batch", "-", given=commands)
            for name, value in (sysctls or {}).items():
                run("sysctl", "-qw", f"net.{name}={value}")
            run("nft", "-f", "-", given=rules)
            return work()

        return run_in_child(inside, timeout_s=2 * TIMEOUT_S)[0]

    return on_host
