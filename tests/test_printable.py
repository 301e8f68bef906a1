"""Nothing that the network sent may command a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from mitml4.printable import printable


@given(st.text(st.characters(codec=None)))
def test_no_character_is_left_that_a_terminal_would_obey(text: str) -> None:
    shown = printable(text)
    for char in shown:
        assert unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
        assert unicodedata.category(char) != "Zs" or char == " "
    shown.encode("utf-8")


@given(st.text(st.characters(codec=None)))
def test_it_changes_nothing_twice(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"])))
def test_letters_digits_and_signs_of_all_scripts_stay(text: str) -> None:
    assert printable(text) == text


def test_what_is_hidden_is_shown_by_its_code() -> None:
    for text, shown in (
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("a\u2028b", "a\\u2028b"),
        ("no\u00a0break", "no\\xa0break"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\ud800", "\\ud800"),
        ("\u263a\ufe0f", "\u263a\\ufe0f"),
        ("\U000e0041", "\\U000e0041"),
        ("例え bücher [bold]", "例え bücher [bold]"),
        ("", ""),
    ):
        assert printable(text) == shown
