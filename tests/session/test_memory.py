"""What a session may use is divided between its processes."""

from __future__ import annotations

from mitml4.payload.budget import SessionPayload
from mitml4.protocols.payload import Shown
from mitml4.session.memory import SharedMemory


def test_all_processes_have_equal_parts_and_no_more_than_before_together() -> None:
    payload = SessionPayload(left=900, free=600)
    memory = SharedMemory(edit_limit=10, pipes=30, shown=Shown(payload=payload.of_flow()))
    others = SessionPayload(left=900, free=600)
    other = SharedMemory(edit_limit=10, pipes=30, shown=Shown(payload=others.of_flow()))
    share = memory.divide(3)
    other.take(share)
    for each, bounds in ((memory, payload), (other, others)):
        assert each.bodies.free == 16 * 10 // 3
        assert each.relay.pipes.most == 10
        assert (bounds.left, bounds.free) == (300, 200)


def test_only_what_is_free_is_divided_but_every_process_can_edit_one_body() -> None:
    memory = SharedMemory(edit_limit=10, pipes=2, shown=Shown())
    assert memory.bodies.take(100)
    assert memory.divide(4).bodies == 15
    assert memory.divide(4).bodies == 10
    assert memory.divide(4).payload is None
