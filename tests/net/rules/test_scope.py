"""Ports, as users write them."""

from __future__ import annotations

import pytest

from mitml4.errors import UsageError
from mitml4.net.rules.scope import PortRange


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("443", [(443, 443)]),
        ("443,8000-8999", [(443, 443), (8000, 8999)]),
        (" 1 , 65535 ", [(1, 1), (65535, 65535)]),
        ("1-65535", [(1, 65535)]),
    ],
)
def test_port_lists_are_read(text: str, ranges: list[tuple[int, int]]) -> None:
    assert PortRange.parse_list(text) == tuple(PortRange(*item) for item in ranges)


def test_what_is_no_port_is_refused_with_a_hint() -> None:
    for text in (
        "",
        "0",
        "65536",
        "443,",
        ",",
        "80-",
        "-80",
        "90-80",
        "0-80",
        "http",
        "+80",
        "8 0",
        "1-2-3",
        "８０",
        "1e3",
        "4_3",
        "99999999999999999999",
    ):
        with pytest.raises(UsageError) as caught:
            PortRange.parse_list(text)
        assert caught.value.hint is not None
