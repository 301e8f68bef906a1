"""What `--dry-run` says, and what becomes of statements that nft refuses. That a session does it
is in e2e/test_rules.py."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from mitml4.errors import UsageError
from mitml4.net.place import HERE
from mitml4.net.rules.guard import NftError
from mitml4.net.rules.interception import Interception, plan
from mitml4.net.rules.scope import Scope
from mitml4.session.destinations.policy import Policy
from mitml4.session.sources.rules import Rules


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


class Refusing:
    """A guard while the kernel has no memory for it."""

    identity = SimpleNamespace(table="mitml4_1", own_mark=1)

    async def tell(self, _statements: str) -> str:
        raise NftError("nft: Could not process rule: No buffer space available")


async def nobody() -> list[Any]:
    return []


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Interception:
    """Whose statements are refused."""
    given: Any = SimpleNamespace(
        address=None,
        untested=None,
        notes=(),
        dropping_sent=frozenset(),
        blocks_quic=True,
        count_quic="",
        stop_interception="",
        waiting=nobody,
        place=HERE,
    )
    guard: Any = Refusing()
    interception = Interception(
        guard, given, given, given, given, given, None, given, notes=(), quic_log=None
    )
    monkeypatch.setattr(interception, "gate", given)
    return interception


async def test_a_count_that_nft_refuses_is_the_last_one(refused: Interception) -> None:
    assert await refused.quic_blocked() == 0


async def test_a_session_goes_on_to_its_end_where_nft_refuses_to_stop(
    refused: Interception,
) -> None:
    assert await Rules(Scope(interfaces=("eth7",)), refused, Policy()).close() == []
