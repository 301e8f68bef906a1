"""Files of another mount namespace, covered for a while."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitml4.errors import MachineError
from mitml4.net.attach.covers import Covers, MountNamespace
from mitml4.net.attach.leftovers import leftovers
from mitml4.net.attach.root import Root

TIMEOUT_S = 30.0
SCRIPT = "mount -t tmpfs none {0} && cd {0} && mkdir d && echo old >d/file && ln -s file d/link && "
SCRIPT += "chmod 640 d/file && mount -o remount,ro {0} && echo ready && read end"


class Programs:
    """A process with files of its own, in a file system that is read-only."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.process = process
        self.directory = f"{directory}/d"
        self.root = Root.of_process(process.pid)
        self.mounts = os.open(f"/proc/{process.pid}/ns/mnt", os.O_RDONLY)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = ["nsenter", f"--target={self.process.pid}", "--mount", *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)

    def cover(self, covers: Covers) -> None:
        with self.root.opened(self.directory) as target:
            covers.directory(target, {"added": b"more"})
        with self.root.opened(f"{self.directory}/link") as target:
            covers.file(target, b"new")

    @property
    def covered(self) -> str:
        mounts = Path(f"/proc/{self.process.pid}/mounts").read_text().splitlines()
        return "\n".join(line for line in mounts if line.startswith("mitml4-cover"))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    command = ["unshare", "--mount", "sh", "-c", SCRIPT.format(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout.readline() == b"ready\n"
        found = Programs(process, tmp_path)
        yield found
        process.stdin.close()
        found.root.close()
        os.close(found.mounts)


@pytest.fixture
def covers(programs: Programs) -> Iterator[Covers]:
    started = Covers.start(MountNamespace(programs.mounts, None))
    yield started
    started.close()


def wait_until(condition) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_covers_are_seen_inside_only_and_until_they_are_closed(programs, covers) -> None:
    programs.cover(covers)
    names = programs.run("ls", programs.directory).stdout.split()
    assert names == ["added", "file", "link"]
    shown = programs.run("cat", f"{programs.directory}/file", f"{programs.directory}/added")
    assert shown.stdout == "newmore"
    mode = programs.run("stat", "-c", "%a", f"{programs.directory}/file")
    assert mode.stdout == "640\n"
    assert programs.run("touch", f"{programs.directory}/x").returncode
    assert "mitml4-cover" not in Path("/proc/self/mounts").read_text()
    assert not Path(programs.directory).exists()
    covers.close()
    assert programs.covered == ""
    assert programs.run("cat", f"{programs.directory}/file").stdout == "old\n"


@pytest.mark.parametrize("what", ["entries", "depth"])
def test_a_directory_that_is_too_large_does_not_keep_others_from_being_covered(
    programs, covers, what
) -> None:
    programs.run("mount", "-o", "remount,rw", str(Path(programs.directory).parent))
    large = f"{programs.directory}/large"
    made = "seq 9000 | xargs touch" if what == "entries" else f"mkdir -p {'a/' * 1500}"
    programs.run("sh", "-c", f"mkdir {large} && cd {large} && {made}")
    with (
        programs.root.opened(large) as target,
        pytest.raises(MachineError, match="too large"),
    ):
        covers.directory(target, {"added": b"more"})
    with programs.root.opened(f"{programs.directory}/link") as target:
        covers.file(target, b"new")
    assert programs.run("cat", f"{programs.directory}/file").stdout == "new"


def test_a_mount_namespace_that_was_made_meanwhile_is_uncovered_too(programs, covers) -> None:
    programs.cover(covers)
    command = ["nsenter", f"--target={programs.process.pid}", "--mount", "unshare", "--mount"]
    with subprocess.Popen([*command, "sh", "-c", "echo ready; read end"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as later:  # fmt: skip
        assert later.stdout.readline() == b"ready\n"
        mounts = Path(f"/proc/{later.pid}/mounts")
        assert "mitml4-cover" in mounts.read_text()
        covers.close()
        assert "mitml4-cover" not in mounts.read_text()
        later.stdin.close()


def test_a_session_that_runs_covers_nothing_more(programs, covers) -> None:
    covers.restrict()
    with pytest.raises(MachineError, match="runs already"):
        programs.cover(covers)
    assert programs.covered == ""


def test_what_a_killed_helper_leaves_is_found_and_removed(programs, covers) -> None:
    programs.cover(covers)
    assert not any(each.path.startswith(programs.directory) for each in leftovers())
    os.kill(int(re.search(r"mitml4-cover-(\d+)", programs.covered)[1]), signal.SIGKILL)
    found = []

    def left() -> bool:
        found[:] = [each for each in leftovers() if each.path.startswith(programs.directory)]
        return bool(found)

    wait_until(left)
    assert [each.path for each in found] == [f"{programs.directory}/file", programs.directory]
    for each in found:
        each.remove()
    assert programs.covered == ""
