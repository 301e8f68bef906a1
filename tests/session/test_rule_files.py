"""The files of rules of a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mitml4.session.editors.rules import RuleFiles, _RuleFile

LIMIT = 1 << 16


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_takes_the_place_of_a_file_and_is_none_is_said_once(tmp_path: Path, make) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[[rule]]\nreset = true\n")
    file = _RuleFile.open(path, LIMIT)
    editor = file.editor
    path.unlink()
    make(path)
    said = file.read_if_changed()
    assert said
    assert said.startswith(f"{path}: cannot be read again: ")
    for _ in range(3):
        assert file.read_if_changed() is None
    assert file.editor is editor
    path.rmdir() if path.is_dir() else path.unlink()
    path.write_text("[[rule]]\nclose = true\n")
    assert file.read_if_changed() == f"{path}: read again, 1 rule"


def test_each_rule_knows_its_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for path in paths:
        path.write_text("[[rule]]\nreset = true\n")
    files = RuleFiles([_RuleFile.open(path, LIMIT) for path in paths])
    try:
        for file, path in zip(files._files, paths, strict=True):
            (rule,) = file.editor.rules
            assert rule.applied("reset", 1).file == str(path)
    finally:
        files.close()
