"""Replacements do not depend on how a stream was split, and have bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitml4.edit.allowance import Allowance, TooMuchError
from mitml4.edit.headers import Headers
from mitml4.edit.replace import MAX_MATCH, Replacement, StreamReplacer
from mitml4.edit.rules import _replace_in_headers

LIMIT = 1 << 20
EXPRESSIONS = {
    "prod": "dev",
    "a+b": "<>",
    "(a|b)c*": r"[\1]",
    "ab|abcab": "x",
    "(?i)AB": "",
}


def in_stream(expression: str, with_: str, pieces: list[bytes]) -> bytes:
    replacer = StreamReplacer(Replacement.of(expression, with_), LIMIT, Allowance())
    return b"".join(map(replacer.feed, pieces)) + replacer.flush()


@given(st.sampled_from(sorted(EXPRESSIONS)), st.lists(st.text("abcprod", max_size=5)))
def test_a_split_changes_nothing(expression: str, texts: list[str]) -> None:
    pieces = [text.encode() for text in texts]
    with_ = EXPRESSIONS[expression]
    whole = Replacement.of(expression, with_).apply(b"".join(pieces), 1 << 20, Allowance())
    assert in_stream(expression, with_, pieces) == whole


def test_only_what_may_become_a_match_is_held_back() -> None:
    replacer = StreamReplacer(Replacement.of("prod", "dev"), LIMIT, Allowance())
    assert replacer.feed(b"a prompt") == b"a prompt"
    assert not replacer.holds
    assert replacer.feed(b"a pr") == b"a "
    assert replacer.holds
    assert replacer.feed(b"od.") == b"dev."
    assert replacer.count == 1


@pytest.mark.parametrize("size", [1, 1000, MAX_MATCH])
def test_a_match_in_a_stream_has_a_longest_length(size: int) -> None:
    text = b"<" + b"x" * (MAX_MATCH - 2) + b">" + b"<" + b"x" * (MAX_MATCH - 1) + b">"
    pieces = [text[at : at + size] for at in range(0, len(text), size)] if size > 1 else [text]
    assert in_stream("<[^<]*>", "", pieces) == text[MAX_MATCH:]


def test_a_result_has_a_largest_size() -> None:
    with pytest.raises(TooMuchError, match="more than 1000 bytes"):
        Replacement.of("a", "b" * 1000).apply(b"a" * 1000, 1000, Allowance())


def test_a_piece_of_a_stream_has_one_too_and_stays_as_it_was() -> None:
    replacer = StreamReplacer(Replacement.of("ab", "b" * 600), 1000, Allowance())
    assert replacer.feed(b"ab.a") == b"b" * 600 + b"."
    with pytest.raises(TooMuchError, match="more than 1000 bytes"):
        replacer.feed(b"b ab c")
    assert replacer.rest() == b"ab ab c"
    assert replacer.count == 1


def test_all_fields_together_have_one_or_none_is_changed() -> None:
    pairs = [("A", "b")] * 3
    for with_, raises in (("c" * 300, None), ("c" * 400, TooMuchError), ("\r\nX: y", ValueError)):
        headers = Headers(Headers.of(pairs).fields)
        replacement = Replacement.of("b|nothing", with_)
        if raises is None:
            assert _replace_in_headers(replacement, headers, 1000, Allowance())
            assert headers.items() == [("A", with_)] * 3
            continue
        with pytest.raises(raises):
            _replace_in_headers(replacement, headers, 1000, Allowance())
        assert headers.items() == pairs
        assert not headers.is_changed


def test_an_expression_has_a_deadline() -> None:
    replacement = Replacement.of("(a|aa)+$", "")
    with pytest.raises(TooMuchError, match="too long"):
        replacement.apply(b"a" * 5000 + b"b", 1 << 20, Allowance())
    replacer = StreamReplacer(replacement, LIMIT, Allowance())
    with pytest.raises(TooMuchError):
        replacer.feed(b"a" * 5000 + b"b")


def test_a_connection_has_a_share_of_the_time() -> None:
    now = 0.0
    allowance = Allowance(lambda: now)
    replacement = Replacement.of("a", "b")
    allowance.spend(10)
    with pytest.raises(TooMuchError, match="on this connection"):
        replacement.apply(b"a", 10, allowance)
    replacer = StreamReplacer(replacement, LIMIT, allowance)
    with pytest.raises(TooMuchError, match="on this connection"):
        replacer.feed(b"a")
    assert replacer.rest() == b"a"
    now = 50.0
    assert replacement.apply(b"a", 10, allowance) == b"b"
