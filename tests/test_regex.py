"""The project's `regex` behaves as `re.compile`, and compiles nothing before it is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mitml4
from mitml4.regex import regex


def test_a_regex_behaves_as_a_compiled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    original = re.compile
    monkeypatch.setattr(re, "compile", lambda *args: compiled.append(args) or original(*args))
    ours, standard = regex(r"(?P<key>a+)=(b*)", re.IGNORECASE), original(r"(?P<key>a+)=(b*)", re.I)
    assert not compiled
    for text in ("A=b", "aa=bb a=", "", "=", "xA=B"):
        for method in ("match", "fullmatch", "search"):
            for _ in range(2):
                ours_found, found = getattr(ours, method)(text), getattr(standard, method)(text)
                assert (ours_found and ours_found.groupdict()) == (found and found.groupdict())
        assert ours.findall(text) == standard.findall(text)
        assert ours.split(text) == standard.split(text)
        assert ours.sub("-", text) == standard.sub("-", text)
    assert (ours.pattern, ours.flags) == (standard.pattern, standard.flags)
    with pytest.raises(AttributeError):
        getattr(ours, "unknown")  # noqa: B009


def test_no_group_is_repeated_possessively() -> None:
    """Some versions of Python that are supported do that wrongly."""
    sources = [*Path(mitml4.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    found = {
        f"{path.name}: {line.strip()}"
        for path in sources
        for line in path.read_text().splitlines()
        if re.search(r"\)(?:[*+?]|\{[0-9,]+\})\+", line)
    }
    assert not found
