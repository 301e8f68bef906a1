"""What `--dry-run` says. That a session does it is in e2e/test_rules.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from mitml4.errors import UsageError
from mitml4.net import sysctl
from mitml4.net.rules.redirect import plan
from mitml4.net.rules.scope import Scope


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth7"), (3, "we*rd")])
    return "eth7"


def test_the_plan_names_the_table_the_routes_and_their_undoing(interface: str) -> None:
    lines = plan(Scope(interfaces=(interface,)))
    assert any(line.startswith("table inet mitml4_") for line in lines)
    assert any("tproxy to" in line for line in lines)
    added = [line for line in lines if line.startswith("ip ") and " add " in line]
    undone = [line for line in lines if line.startswith("ip ") and " del " in line]
    assert added
    assert [line.replace(" add ", " del ", 1) for line in added] == undone


def test_the_plan_of_local_connections_needs_no_route(interface: str) -> None:
    lines = plan(Scope(interfaces=(interface,), direction="local"))
    assert not any(line.startswith("ip ") for line in lines)
    assert not any("tproxy" in line for line in lines)


def test_the_plan_redirects_what_bridges_bring_where_they_are_filtered(
    interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = tmp_path / "net/bridge/bridge-nf-call-iptables"
    setting.parent.mkdir(parents=True)
    monkeypatch.setattr(sysctl, "_DIRECTORY", tmp_path)
    for value, bridged in (("0\n", False), ("1\n", True)):
        setting.write_text(value)
        lines = plan(Scope(interfaces=(interface,), direction="forwarded"))
        assert any("iifkind" in line for line in lines) is bridged
        assert any("redirect to" in line for line in lines) is bridged


@pytest.mark.parametrize("name", ["lo", "eth8", "we*rd", ""])
def test_an_interface_that_cannot_be_is_refused_with_a_hint(interface: str, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(Scope(interfaces=(name,)))
    assert caught.value.hint
