"""What `make` leaves behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_clean_removes_what_the_other_commands_create(tmp_path: Path) -> None:
    """That is what git ignores."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = tmp_path / "mitml4" / "a.py"
    for ignored in (ROOT / ".gitignore").read_text().split():
        name = ignored.strip("/").replace("*", "any")
        (tmp_path / name / "b").mkdir(parents=True)
    (kept.parent / "net" / "__pycache__").mkdir(parents=True)
    kept.touch()
    subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["Makefile", "bench", "mitml4", "mitml4/a.py", "mitml4/net"]


def test_a_tool_that_the_archive_lacks_is_not_asked_of_it(tmp_path: Path) -> None:
    """Otherwise nothing could be tested there."""
    asked = tmp_path / "asked"
    for name, lines in (
        ("apt-get", f"touch {asked}"),
        ("apt-cache", "printf '%s:\\n  Installed: (none)\\n  Candidate: (none)\\n' $2"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = [
        str(ROOT / "tools" / "install-commands"),
        "sh=?dash",
        "no-such-command=?no-such-package",
    ]
    subprocess.run(argv, check=True, env=environment)
    assert not asked.exists()
