"""Headers keep their order, are found in any case, and are never split."""

from __future__ import annotations

import pytest

from mitml4.edit.headers import Headers


def test_they_are_ordered_and_found_in_any_case() -> None:
    headers = Headers.of([("B", "1"), ("a", "2"), ("b", "3")])
    assert headers["B"] == headers["b"] == "1"
    assert headers.get_all("b") == ["1", "3"]
    headers["b"] = "4"
    assert headers.items() == [("B", "4"), ("a", "2")]
    headers.add("C", "5")
    del headers["A"]
    assert list(headers) == ["B", "C"]
    assert "c" in headers
    assert "a" not in headers
    with pytest.raises(KeyError):
        del headers["a"]
    with pytest.raises(KeyError):
        headers["a"]


@pytest.mark.parametrize(
    ("name", "value"), [("a", "b\r\nc: d"), ("a", "\n"), ("a", "\0"), ("a b", "c"), ("", "a")]
)
def test_a_field_is_never_split(name: str, value: str) -> None:
    headers = Headers()
    with pytest.raises(ValueError, match="header field"):
        headers[name] = value
    with pytest.raises(ValueError, match="header field"):
        headers.add(name, value)
    assert headers.items() == []
