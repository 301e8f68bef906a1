"""What sessions share with nobody."""

from __future__ import annotations

from mitml4.net.identity import ANY_MARK, MAGIC_MASK, SLOTS, Identity

ALL = [Identity(slot) for slot in range(SLOTS)]


def marks(item: Identity) -> tuple[int, ...]:
    return item.own_mark, item.admitted_mark, item.refused_mark, item.unreachable_mark


def test_no_two_sessions_share_anything() -> None:
    for values in (
        [item.table for item in ALL],
        [item.log_group for item in ALL],
        [mark for item in ALL for mark in marks(item)],
    ):
        assert len(set(values)) == len(values)


def test_marks_keep_to_the_upper_half_and_clear_of_tailscale() -> None:
    for item in ALL:
        for mark in marks(item):
            assert mark & 0xFFFF == 0
            assert mark & MAGIC_MASK == ANY_MARK
            assert mark & 0xFF0000 not in (0x40000, 0x80000)


def test_log_groups_are_such() -> None:
    """Which are numbers of 16 bits."""
    assert all(0 < item.log_group < 1 << 16 for item in ALL)


def test_candidates_are_all_identities_from_the_one_that_the_process_suggests() -> None:
    slots = [item.slot for item in Identity.candidates(SLOTS * 7 + 3)]
    assert slots[:2] == [3, 4]
    assert sorted(slots) == list(range(SLOTS))
