"""Covers in a list of mounts, and whether their helper lives."""

from __future__ import annotations

import os

import pytest

from mitml4.net.attach import leftovers
from mitml4.net.attach.leftovers import source_name

LINE = "36 35 98:0 /0 {path} ro,relatime - tmpfs {source} ro\n"
OTHERS = (
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
    "24 22 0:5 / /run rw - tmpfs mitml4-covering rw\n"
)


@pytest.mark.parametrize(
    ("source", "is_left", "is_ours"),
    [
        (source_name(), False, True),
        (f"mitml4-cover-{os.getppid()}-1", True, False),
        ("mitml4-cover-0-1", True, False),
    ],
)
def test_a_cover_is_left_if_its_helper_is_gone(source: str, is_left: bool, is_ours: bool) -> None:
    mounts = OTHERS + LINE.format(path=r"/etc/a\040b", source=source)
    for ours, expected in ((False, is_left), (True, is_ours)):
        assert list(leftovers._covered(mounts, ours=ours)) == (["/etc/a b"] if expected else [])
