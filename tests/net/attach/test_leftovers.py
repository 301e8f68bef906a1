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


@pytest.mark.parametrize("helper", ["ours", "another's", "gone"])
def test_a_cover_is_left_if_its_helper_is_gone(helper: str) -> None:
    sources = {
        "ours": source_name(),
        "another's": f"mitml4-cover-{os.getppid()}-1",  # another process had that id before
        "gone": "mitml4-cover-0-1",
    }
    mounts = OTHERS + LINE.format(path=r"/etc/a\040b", source=sources[helper])
    is_ours = helper == "ours"
    for ours, expected in ((False, not is_ours), (True, is_ours)):
        assert list(leftovers._covered(mounts, ours=ours)) == (["/etc/a b"] if expected else [])


@pytest.mark.parametrize("helper", ["running", "gone", None])
def test_files_are_covered_by_a_session_whose_helper_runs(helper, monkeypatch) -> None:
    sources = {"running": source_name(), "gone": "mitml4-cover-0-1"}
    cover = LINE.format(path="/etc/a", source=sources[helper]) if helper else ""
    monkeypatch.setattr(leftovers, "_mounts_of", lambda _: OTHERS + cover)
    assert leftovers.is_covered_by_a_session(1) == (helper == "running")
