"""What `make soak` does for minutes, for half of one: without databases, and with few clients; and
some of the system calls that `make faults` and `make start-faults` let fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 280


def test_faults_under_load_leave_nothing() -> None:
    command = [
        *(sys.executable, "tools/soak.py", "--seed", "1", "--seconds", "12", "--light"),
        *("--stages", "plain,outputs", "--clients", "3", "--fault-s", "2"),
    ]
    done = subprocess.run(command, cwd=ROOT, timeout=TIMEOUT_S, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("; 0 problems\n")


def test_system_calls_that_fail_leave_nothing() -> None:
    command = [sys.executable, "tools/inject_faults.py", "--sample", "8", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, timeout=TIMEOUT_S, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("8 failed calls, 0 with problems\n")


def test_a_start_whose_system_calls_fail_leaves_nothing() -> None:
    command = [
        *(sys.executable, "tools/inject_start_faults.py", "--sample", "6", "--seed", "1"),
        *("--kinds", "intercept", "--phases", "start,steps", "--at-most", "12"),
    ]
    done = subprocess.run(command, cwd=ROOT, timeout=TIMEOUT_S, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 with problems\n")
