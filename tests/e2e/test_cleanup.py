"""A session and its guard are killed, and nothing is left; and what a demo leaves, `mitml4 cleanup`
removes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mitml4.lab.snapshot import difference, take_snapshot

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60


@pytest.fixture(autouse=True)
def no_demo_but_ours(tmp_path, monkeypatch):
    """A demo that somebody has killed on this machine has left a directory too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def cleanup(*options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mitml4", "cleanup", *options]
    return subprocess.run(
        command, cwd=ROOT, timeout=TIMEOUT_S, check=True, capture_output=True, text=True
    )


def children(pid: int) -> list[int]:
    """A process's: whichever of its threads has started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


def test_a_session_that_is_killed_with_its_guard_leaves_nothing(lab, tmp_path, wait_until):
    before = lab.router.call(take_snapshot)
    command = [
        *(sys.executable, "-m", "mitml4", "intercept", "--iface", "wan", "--json"),
        *("--ca-dir", str(tmp_path / "ca")),
    ]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with lab.router.popen(command, cwd=ROOT, **options) as process:
        assert b"session.start" in process.stdout.readline()
        assert difference(before, lab.router.call(take_snapshot)) != ""
        process.send_signal(signal.SIGSTOP)  # or it would see that its guard has gone
        for pid in (*children(process.pid), process.pid):
            with suppress(ProcessLookupError):  # one that was about to end
                os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: difference(before, lab.router.call(take_snapshot)) == "", "everything is undone"
    )


def test_where_nothing_is_left_there_is_nothing_to_do():
    for options in ((), ("--dry-run",)):
        done = cleanup(*options)
        assert (done.stdout, done.stderr) == ("", "there is nothing to clean up\n")


def test_the_directory_of_a_killed_demo_goes_and_that_of_a_running_one_stays():
    code = (
        "from mitml4.lab.scratch import scratch_directory\n"
        "with scratch_directory() as place:\n"
        "    (place / 'ca').mkdir(); print(place, flush=True); input()"
    )
    demos = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    with demos[0] as killed, demos[1] as running:
        left, used = (Path(demo.stdout.readline().strip()) for demo in demos)
        killed.kill()
        killed.wait()
        assert cleanup("--dry-run").stdout == f"rm -r {left}\n"
        assert left.exists()
        assert cleanup().stderr == f"rm -r {left}\n"
        assert not left.exists()
        assert used.exists()
        running.communicate("\n", timeout=TIMEOUT_S)
    assert not used.exists()
