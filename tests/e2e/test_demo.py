"""The demo shows every kind of stack, on a terminal, in a pipe, as root and as a user."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mitml4.lab.clients import VISITS
from mitml4.lab.snapshot import take_snapshot

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "mitml4", "demo"]


@pytest.fixture(autouse=True)
def the_host_is_as_it_was():
    before = take_snapshot()
    yield
    assert take_snapshot() == before


def closes(output):
    events = [json.loads(line) for line in output.splitlines()]
    return [event for event in events if event["type"] == "flow.close"]


def stacks(output):
    return [tuple(close["stack"]) for close in closes(output)]


def test_every_visit_is_seen_with_its_stack():
    result = subprocess.run([*DEMO, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert stacks(result.stdout) == [visit.stack for visit in VISITS]
    assert {close["reason"] for close in closes(result.stdout)} == {"closed", "error"}
    assert "as they were before" in result.stderr


def test_a_user_needs_no_root():
    """Without any capability, and so without root's, in a user namespace of the demo's own."""
    unprivileged = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "setpriv"]
    unprivileged += ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"]
    command = [*unprivileged, *DEMO, "--json"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert stacks(result.stdout) == [visit.stack for visit in VISITS]


HURRIED = """
import mitml4.cli.demo
from mitml4.__main__ import main

mitml4.cli.demo._SECONDS_TO_LOOK = 0.0
main()
"""


def test_a_terminal_gets_the_table():
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", HURRIED, "demo"],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        screen = read_terminal(ours)
    os.close(ours)
    assert process.returncode == 0, screen
    assert "socks5 › http-connect › tls › http/2" in screen
    assert "as they were before" in screen


def test_a_reader_that_goes_away_ends_it_quietly():
    with subprocess.Popen(
        [*DEMO, "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert "session.start" in process.stdout.readline()
        process.stdout.close()
        talk = process.stderr.read()
    assert "Traceback" not in talk
    assert process.returncode == 0, talk


def test_ctrl_c_ends_it_cleanly():
    with subprocess.Popen(
        [*DEMO, "--json"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stdout.readline()
        assert "session.start" in first, process.stderr.read()
        process.send_signal(signal.SIGINT)
        output, talk = process.communicate(timeout=60)
    assert process.returncode == 0, talk
    assert json.loads(output.splitlines()[-1])["type"] == "session.stop"
    assert "Ended early" in talk


def read_terminal(descriptor):
    screen = bytearray()
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:  # EIO: the last program has closed the terminal
            break
        if not data:
            break
        screen += data
    return screen.decode(errors="replace")
