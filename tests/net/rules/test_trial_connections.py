"""What follows where no test connection is possible. Those that are: e2e/test_owners.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mitml4.errors import MachineError
from mitml4.net.rules import trial_connections
from mitml4.net.rules.probe import CannotProbeError
from mitml4.net.rules.scope import Cgroup, Owner, Scope


async def test_a_cgroup_that_cannot_be_tested_is_refused_and_a_user_is_not(monkeypatch) -> None:
    """nft knows a user by its number, and loads a rule for any cgroup."""

    @asynccontextmanager
    async def refuse(*_: object, **__: object) -> AsyncIterator[None]:
        raise CannotProbeError("no namespace")
        yield

    monkeypatch.setattr(trial_connections, "probe_link", refuse)

    async def attempt(*owners: Owner) -> str | None:
        guard: Any = type("Guard", (), {"identity": None})
        scope = Scope(owners=owners)
        return await trial_connections.try_connections(scope, guard, None, ipv6=False)

    assert await attempt(1000) == "the rules could not be tested: no namespace"
    with pytest.raises(MachineError, match="connections of the cgroup /a may not be told") as said:
        await attempt(1000, Cgroup("/a"))
    assert "--user" in (said.value.hint or "")
