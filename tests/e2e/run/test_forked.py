"""What the tests fork (forked.py) is like a start of the same command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mitml4.net.netns import NetNamespace
from tests.e2e import forked
from tests.e2e.run.conftest import AS_NOBODY, NOBODY, Python

SHOWN = Path(__file__).with_name("shown.py").read_text()


@pytest.mark.parametrize("user", [0, NOBODY], ids=["root", "user"])
def test_a_fork_is_like_a_start(files: Path, python: Python, user: int) -> None:
    """But for its parent, the zeros behind its command line, and what it has imported."""
    (files / "shown.py").write_text(SHOWN)
    (files / "hosts").write_text("127.0.0.1 localhost\n")
    mounts = f"mount --bind {files}/hosts /etc/hosts || exit"
    env = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": python.path,
        "PWD": str(files),  # which a shell sets
    }
    arguments = ["one", "two words", "", "ü"]
    private = ("unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts}; exec "$@"')
    who = AS_NOBODY if user else ()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    settings: dict[str, Any] = {"cwd": files, "env": env, **pipes}
    with NetNamespace() as namespace:
        argv = [*private, "sh", *who, python.program, "-m", "shown", *arguments]
        fork = forked.start(
            arguments,
            program=python.program,
            namespace=namespace,
            mounts=mounts,
            user=user,
            module="shown",
            **settings,
        )
        with namespace.popen(argv, text=True, **settings) as start, fork:
            started, forked_one = (each.communicate("said\n", 60) for each in (start, fork))
    assert (start.returncode, fork.returncode) == (7, 7), (started, forked_one)
    assert (started[1], forked_one[1]) == ("said\n", "said\n")
    of_start, of_fork = (json.loads(out) for out, _ in (started, forked_one))
    differing = {each: (of_start[each], of_fork[each]) for each in of_start}
    assert {name: pair for name, pair in differing.items() if pair[0] != pair[1]} == {}
