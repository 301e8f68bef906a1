"""What `make` leaves behind."""

from __future__ import annotations

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
