"""Slots, held with the real kernel."""

from __future__ import annotations

import trio

from mitml4.net.identity import SLOTS
from mitml4.net.netns import NetNamespace
from mitml4.net.rules.guard import Guard


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
