"""What `--dry-run` says. That a session does it is in e2e/test_rules.py."""

from __future__ import annotations

import socket

import pytest

from mitml4.errors import UsageError
from mitml4.net.rules.interception import plan
from mitml4.net.rules.scope import Scope


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth7"), (3, "we*rd")])
    return "eth7"


def test_the_plan_names_the_table_and_what_undoes_it(interface: str) -> None:
    first, *lines, last = plan(Scope(interfaces=(interface,)))
    table = lines[0].removesuffix(" {")
    assert first.startswith("# nft -i")
    assert table.startswith("table inet mitml4_")
    assert any(f'iifname {{ "{interface}" }}' in line for line in lines)
    assert last.endswith(f"nft delete {table}")


@pytest.mark.parametrize("name", ["lo", "eth8", "we*rd", ""])
def test_an_interface_that_cannot_be_is_refused_with_a_hint(interface: str, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(Scope(interfaces=(name,)))
    assert caught.value.hint
