"""The files of another process: read inside its root, wherever its links lead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mitml4.net.attach.root import Root


@pytest.fixture
def root(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/file").write_bytes(b"inside")
    (tmp_path / "etc/absolute").symlink_to("/etc/file")
    (tmp_path / "etc/above").symlink_to("../../../../../etc/file")
    (tmp_path / "etc/passwd").symlink_to("/etc/no-passwd-here")
    (tmp_path / "etc/loop").symlink_to("loop")
    os.mkfifo(tmp_path / "etc/pipe")
    found = Root(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY))
    yield found
    found.close()


@pytest.mark.parametrize("path", ["/etc/file", "/etc/absolute", "/etc/above", "etc/../../etc/file"])
def test_links_stay_inside(root: Root, path: str) -> None:
    assert root.read(path, 100) == b"inside"


@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/loop", "/etc/pipe", "/etc", "/none"])
def test_what_is_no_file_inside_has_no_content(root: Root, path: str) -> None:
    assert root.read(path, 100) is None


def test_a_file_above_the_limit_is_not_read(root: Root) -> None:
    assert root.read("/etc/file", 5) is None


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/etc/file", ["/etc/file"]),
        ("/*/f*e", ["/etc/file"]),
        ("/etc/a*", ["/etc/above", "/etc/absolute"]),
        ("/etc/pass*", []),
        ("/none/*", []),
    ],
)
def test_patterns_are_the_shells(root: Root, pattern: str, found: list[str]) -> None:
    assert root.matching(pattern) == found
