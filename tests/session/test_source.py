"""How the sources of a session are opened, and what the process keeps then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mitml4.net.capabilities import Capability
from mitml4.session.sources import source as source_module
from mitml4.session.sources.source import confined


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What happens, in its order; privileges stay."""
    happened: list[object] = []
    monkeypatch.setattr(source_module, "import_all", lambda: happened.append("import"))
    monkeypatch.setattr(source_module, "confine", lambda keep: happened.append(tuple(keep)))
    return happened


@asynccontextmanager
async def opened(name: str, steps: list[object], *, fails: bool = False) -> AsyncIterator[Any]:
    steps.append(f"open {name}")
    if fails:
        raise OSError(name)
    try:
        yield name
    finally:
        steps.append(f"close {name}")


async def test_privileges_go_once_all_sources_are_open(steps: list[object]) -> None:
    keep = (Capability.NET_ADMIN,)
    async with confined(opened("a", steps), opened("b", steps), keep=keep) as sources:
        assert sources == ["a", "b"]
        assert steps == ["open a", "open b", "import", keep]
    assert steps[4:] == ["close b", "close a"]


async def test_a_source_that_cannot_be_opened_leaves_none_open(steps: list[object]) -> None:
    with pytest.raises(OSError, match="b"):
        async with confined(opened("a", steps), opened("b", steps, fails=True), keep=()):
            pytest.fail("it was entered")
    assert steps == ["open a", "open b", "close a"]
