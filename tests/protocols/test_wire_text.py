"""Wire bytes as text, within a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.protocols.wire_text import (
    CUT,
    MAX_ITEMS,
    MAX_PAIRS,
    MAX_TEXT,
    bounded,
    pairs,
    shorten,
    text,
    whole_text,
)


@pytest.mark.parametrize("byte", [b"a", b"\xff", "é".encode(), "€".encode()])
def test_a_text_is_whole_or_is_cut_and_says_so(byte: bytes) -> None:
    for count in (0, 1, 255, 256, 1000, MAX_TEXT, MAX_TEXT + 1, 10 * MAX_TEXT):
        shown, whole = text(byte * count), whole_text(byte * count)
        if shown == whole:
            assert len(shown) <= MAX_TEXT
        else:
            assert shown.endswith(CUT)
            assert len(shown) <= MAX_TEXT + 1
            assert shorten(shown) == shown


@given(st.binary(max_size=300))
def test_what_is_short_is_shown_as_it_is(data: bytes) -> None:
    assert text(data) == data.decode("utf-8", "backslashreplace")


def test_lists_are_bounded() -> None:
    assert bounded(tuple("a" * MAX_ITEMS)) == tuple("a" * MAX_ITEMS)
    assert bounded(tuple("a" * (MAX_ITEMS + 1))) == (*"a" * MAX_ITEMS, CUT)
    assert bounded((("a", "b"),) * 1000)[MAX_ITEMS:] == ((CUT, CUT),)


def test_header_fields_are_bounded_together() -> None:
    assert pairs([(b"X", b"\xff"), (b"", b"")]) == (("X", "\\xff"), ("", ""))
    shown = pairs([(b"x", b"y" * 4000)] * 1000)
    assert len(shown) == MAX_PAIRS // 4000 + 1
    assert shown[-1] == (CUT, CUT)
    assert len(pairs([(b"a", b"")] * 1000)) == MAX_ITEMS + 1
