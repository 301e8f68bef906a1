"""A filter that is typed."""

import pytest

from mitml4.screen.prompt import type_key

BACKSPACE, CTRL_U, CTRL_W = b"\x7f", b"\x15", b"\x17"


@pytest.mark.parametrize(
    ("typed", "key", "left"),
    [
        ("port:443", BACKSPACE, "port:44"),
        ("port:443 stack:tls", CTRL_W, "port:443 "),
        ("port:443 stack:tls ", CTRL_W, "port:443 "),
        ("port:443", CTRL_W, ""),
        ("port:443 stack:tls", CTRL_U, ""),
        ("", BACKSPACE, ""),
        ("", CTRL_W, ""),
        ("", CTRL_U, ""),
        ("port:4", b"4", "port:44"),
        ("port:4", b"\x01", "port:4"),
    ],
)
def test_it_is_corrected_as_in_a_shell(typed: str, key: bytes, left: str) -> None:
    assert type_key(typed, key, None) == (left, None, "", None)
