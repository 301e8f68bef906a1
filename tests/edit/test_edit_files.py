"""Nothing leads out of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mitml4.edit.files import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "secret").write_text("secret")
    web = tmp_path / "web"
    (web / "inner").mkdir(parents=True)
    (web / "a.txt").write_text("a")
    (web / "inner" / "index.html").write_text("index")
    (web / "link").symlink_to("../secret")
    (web / "near").symlink_to("a.txt")
    (web / "out").symlink_to("..")
    os.mkfifo(web / "pipe")
    return Folder.open(web)


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        (["a.txt"], ("a.txt", b"a")),
        (["", ".", "a.txt"], ("a.txt", b"a")),
        (["inner"], ("index.html", b"index")),
        (["inner", ""], ("index.html", b"index")),
    ],
)
def test_a_file_is_read(folder: Folder, parts: list[str], found: tuple[str, bytes]) -> None:
    assert folder.read(parts, 100) == found


@pytest.mark.parametrize(
    "parts",
    [
        ["..", "secret"],
        ["inner", "..", "..", "secret"],
        ["../secret"],
        ["link"],
        ["near"],
        ["out", "secret"],
        ["/etc/passwd"],
        ["a.txt\0"],
        ["pipe"],
        ["missing"],
        [],
        ["inner"] * 100,
    ],
)
def test_what_leads_out_is_not_read(folder: Folder, parts: list[str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises((OSError, ValueError), match=r"Errno|null"):
        folder.read(parts, 100)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_has_a_largest_size(folder: Folder) -> None:
    with pytest.raises(OSError, match="File too large"):
        folder.read(["a.txt"], 0)
