"""Fragments: any order and overlap, and never more memory than is allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mitml4.capture.network.fragments import Fragments

DATA = bytes(range(64))


@given(st.permutations([(0, 16), (8, 40), (40, 56), (48, 64), (0, 16)]))
def test_any_order_and_overlap_gives_the_datagram(pieces: list[tuple[int, int]]) -> None:
    fragments = Fragments()
    given_back = [
        fragments.add(b"key", start, DATA[start:end], more=end < len(DATA)) for start, end in pieces
    ]
    assert [data for data in given_back if data is not None] == [DATA]


def test_a_hole_keeps_a_datagram_open() -> None:
    fragments = Fragments()
    assert fragments.add(b"key", 0, DATA[:16], more=True) is None
    assert fragments.add(b"key", 24, DATA[24:], more=False) is None
    assert fragments.add(b"other", 16, DATA[16:24], more=True) is None
    assert fragments.add(b"key", 16, DATA[16:24], more=True) == DATA


def test_the_oldest_gives_way_when_too_many_are_open() -> None:
    fragments = Fragments()
    for number in range(300):
        fragments.add(number.to_bytes(2, "big"), 0, b"x" * 8, more=True)
    assert fragments.add((0).to_bytes(2, "big"), 8, b"y", more=False) is None
    assert fragments.add((299).to_bytes(2, "big"), 8, b"y", more=False) == b"x" * 8 + b"y"


def test_a_fragment_beyond_the_longest_datagram_is_dropped() -> None:
    fragments = Fragments()
    assert fragments.add(b"key", 65528, bytes(16), more=False) is None
    assert fragments.add(b"key", 0, bytes(65528), more=False) == bytes(65528)


def test_fragments_that_overlap_are_given_up_once_they_are_more_than_a_datagram() -> None:
    fragments = Fragments()
    for number in range(1000):
        offset = number * 8
        fragments.add(b"key", offset, bytes(65_535 - offset), more=True)
        assert sum(each.size for each in fragments._open.values()) <= 2 * 65_535
