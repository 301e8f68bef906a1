"""Programs that are there, are not, or do not work; and who may use them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mitml4.errors import MachineError
from mitml4.net.firewall.host_rules import HostRules
from mitml4.session.doctor import prerequisites
from mitml4.session.doctor.check import install
from mitml4.session.doctor.prerequisites import Power, check_tool


@pytest.fixture
def bin(tmp_path: Path, monkeypatch) -> Path:
    """The only place where programs are looked for."""
    monkeypatch.setattr(prerequisites, "environment", lambda: {"PATH": str(tmp_path)})
    monkeypatch.setattr(prerequisites, "_TIMEOUT_S", 60)  # a busy machine takes longer
    return tmp_path


def put(place: Path, script: str) -> None:
    place.write_text(script)
    place.chmod(0o755)


def test_a_tool_that_is_there_tells_its_version(bin: Path) -> None:
    put(bin / "nft", "#!/bin/sh\necho nftables v9 $1\n")
    check = check_tool("nft")
    assert (check.state, check.found) == ("ok", f"nftables v9 --version ({bin}/nft)")


def test_a_tool_that_is_missing_is_to_be_installed(bin: Path) -> None:
    check = check_tool("ip")
    assert (check.state, check.found) == ("fail", "not installed")
    assert "iproute" in check.remedy[0]


@pytest.mark.parametrize("script", ["#!/bin/sh\necho broken >&2; exit 1\n", "#!/no/such\n"])
def test_a_tool_that_does_not_work_is_a_failure(bin: Path, script: str) -> None:
    put(bin / "nft", script)
    check = check_tool("nft")
    assert check.state == "fail"
    assert "does not work" in check.found
    assert check.remedy


def test_a_limit_on_processes_is_not_blamed_on_the_tool(bin: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    put(bin / "nft", "#!/bin/sh\n")
    monkeypatch.setattr(subprocess, "run", refuse)
    check = check_tool("nft")
    assert (check.state, check.remedy) == ("fail", ("ulimit -u",))


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt", "apt install iproute2"),
        ("dnf", "dnf install iproute"),
        ("pacman", "pacman -S iproute2"),
        ("apk", "apk add iproute2"),
        (None, "apt install iproute2"),
    ],
)
def test_packages_are_installed_as_the_system_does(monkeypatch, manager, command) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name == manager)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install("iproute2") == (f"sudo {command}",)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert install("iproute2") == (command,)


def test_rules_that_cannot_be_read_for_another_reason_take_no_power() -> None:
    assert Power(True, None, MachineError("nft is broken")).suffices
    assert Power(True, HostRules("")).suffices
    assert not Power(False, HostRules("")).suffices
