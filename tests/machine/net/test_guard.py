"""Slots, held with the real kernel."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from mitml4.net.identity import SLOTS
from mitml4.net.netns import NetNamespace
from mitml4.net.rules.guard import Guard, GuardLostError


def test_a_slot_that_another_session_owns_is_passed_over() -> None:
    """The kernel answers otherwise than for a table without an owner."""

    async def claim_two() -> list[int]:
        guards = [await Guard.claim() for _ in range(2)]
        for guard in guards:
            await guard.aclose()
        return [guard.identity.slot for guard in guards]

    with NetNamespace() as namespace:
        first, second = namespace.call(lambda: trio.run(claim_two))
    assert second == (first + 1) % SLOTS


def child_called(name: str) -> int:
    lists = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for children in lists for pid in children.read_text().split()]
    return next(pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == name)


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(monkeypatch) -> None:
    """As on a machine that is overloaded, or where somebody has stopped nft for a while."""

    async def ask() -> tuple[str, str, str]:
        guard = await Guard.claim()
        await guard.tell(f"add counter inet {guard.identity.table} counted")
        nft = child_called("nft")
        os.kill(nft, signal.SIGSTOP)
        monkeypatch.setattr("mitml4.net.rules.guard._TIMEOUT_S", 0.2)
        for _ in range(2):
            with pytest.raises(GuardLostError, match="does not answer"):
                await guard.tell("list tables")
        monkeypatch.setattr("mitml4.net.rules.guard._TIMEOUT_S", 60)
        os.kill(nft, signal.SIGCONT)
        answer = await guard.tell(f"list counter inet {guard.identity.table} counted")
        again = await guard.tell("list tables")
        await guard.aclose()
        return guard.identity.table, answer, again

    with NetNamespace() as namespace:
        table, answer, again = namespace.call(lambda: trio.run(ask))
    assert "packets 0" in answer
    assert f"table inet {table}" in again.splitlines()
    assert "packets" not in again
