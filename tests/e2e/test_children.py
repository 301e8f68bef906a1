"""A session leaves no process behind, and no zombie either where PID 1 reaps nobody."""

from __future__ import annotations

import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from mitml4.lab.network import LAN, LabNetwork

from .conftest import ROOT, SLOW_S

WITNESS = """
import os, sys
from pathlib import Path
from mitml4.net.processes import become_subreaper

become_subreaper()  # as PID 1 of a container, which waits for nobody but its program
pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "mitml4", *sys.argv[2:]], os.environ)
_, status = os.waitpid(pid, 0)
children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
left = [Path(f"/proc/{each}/stat").read_text() for each in children]
Path(sys.argv[1]).write_text("".join(left))
sys.exit(os.waitstatus_to_exitcode(status))
"""
RULE = '[[rule]]\nset-response-headers = { "X-Rule" = "seen" }\n'
SHORT = ("--duration", "300ms")


def left_by(lab: LabNetwork, directory: Path, *arguments: str) -> tuple[int, str]:
    """The exit code, and the processes that are still there."""
    left = directory / "left"
    argv = [sys.executable, "-c", WITNESS, str(left), *arguments]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    process = lab.router.popen(argv, cwd=ROOT, **quiet)
    code = process.wait(SLOW_S)
    return code, left.read_text()


@pytest.fixture
def outputs(tmp_path: Path) -> list[str]:
    """Options that need helpers."""
    script, rules = tmp_path / "script.py", tmp_path / "rules.toml"
    script.write_text("def response(flow, request, response): pass\n")
    rules.write_text(RULE)
    return [
        *("--script", str(script), "--rules", str(rules)),
        *("--har", str(tmp_path / "a.har"), "-w", str(tmp_path / "a.pcapng")),
    ]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_proxy_leaves_none(lab, tmp_path, outputs, workers):
    options = ["--ca-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--workers", workers]
    assert left_by(lab, tmp_path, "proxy", *options, *outputs, *SHORT) == (0, "")


def test_intercept_leaves_none(lab, tmp_path, outputs):
    options = ["--ca-dir", str(tmp_path), "--workers", "3"]
    for scope in (("--iface", LAN), ("--user", pwd.getpwuid(65534).pw_name)):
        assert left_by(lab, tmp_path, "intercept", *scope, *options, *outputs, *SHORT) == (0, "")


def test_attached_to_a_process_it_leaves_none(lab, client, tmp_path, outputs):
    options = ["--ca-dir", str(tmp_path), "--workers", "3"]
    with client.namespace.popen(["unshare", "--mount", "sleep", "600"]) as program:
        try:
            scope = ["--pid", str(program.pid)]
            code, left = left_by(lab, tmp_path, "intercept", *scope, *options, *outputs, *SHORT)
        finally:
            program.kill()
    assert (code, left) == (0, "")


@pytest.mark.parametrize("wait", [(), ("--wait",)])
def test_run_leaves_none(lab, tmp_path, outputs, wait):
    options = ["--workers", "2", *outputs, *wait]
    assert left_by(lab, tmp_path, "run", *options, "--", "sh", "-c", "true & exit 3") == (3, "")


def test_a_start_that_fails_leaves_none(lab, tmp_path, outputs):
    options = ["--ca-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--keylog", "/nowhere/keys"]
    code, left = left_by(lab, tmp_path, "proxy", *options, *outputs)
    assert (code != 0, left) == (True, "")
