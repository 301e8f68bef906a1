"""How a refusal says what is refused."""

from __future__ import annotations

import pytest

from mitml4.protocols.policy import NOT_ALLOWED, Blocked, Target, Unreadable


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (Target("a.example", 443), "a.example:443 is not in --allow"),
        (Target("192.0.2.1", 80), "192.0.2.1:80 is not in --allow"),
        (Target("2001:db8::1", 443), "[2001:db8::1]:443 is not in --allow"),
        (Target("[2001:db8::1]", 443), "[2001:db8::1]:443 is not in --allow"),  # as in a URL
        (Unreadable("HTTP: two hosts"), "HTTP: two hosts"),
        (Unreadable(), "a host that cannot be read"),
    ],
)
def test_what_is_refused_is_said(end, said: str) -> None:
    assert str(Blocked(NOT_ALLOWED, end)) == said
