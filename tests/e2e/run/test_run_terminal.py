"""The terminal is the command's: keys, job control, window size; our lines keep out of its way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shlex
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TIMEOUT_S = 60.0
CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"


class Terminal:
    """An interactive shell on a separate terminal."""

    def __init__(self, host) -> None:
        self.host = host
        self.screen, inside = os.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("4H", 33, 99, 0, 0))

        def take() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = host.popen(
            host.shell("bash", "--norc", "--noprofile", "-i"),
            **dict.fromkeys(("stdin", "stdout", "stderr"), inside),
            env=host.environ | {"PS1": "outer> ", "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=take,
        )
        os.close(inside)
        self.seen = ""
        self.expect("outer> ")

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def run(self, *command: str, options: tuple[str, ...] = ()) -> None:
        """`mitml4 run` in the shell. The shell is inside the host's mounts already."""
        argv = self.host.argv(*command, options=options)
        self.type(shlex.join(argv[argv.index("setpriv") :]) + "\r")

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Poll what a terminal tells nobody."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def is_in_line_mode(self) -> bool:
        return bool(termios.tcgetattr(self.screen)[3] & termios.ICANON)

    @property
    def foreground(self) -> int:
        return os.tcgetpgrp(self.screen)

    @property
    def foreground_program(self) -> str:
        """Its name, if it is still there to tell."""
        try:
            return Path(f"/proc/{self.foreground}/comm").read_text().strip()
        except OSError:
            return ""

    def expect(self, pattern: str) -> str:
        """Read until it is seen; what comes after it is still unread then."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := re.search(pattern, self.seen)):
            readable, _, _ = select.select([self.screen], [], [], deadline - time.monotonic())
            if not readable:
                pytest.fail(f"waited in vain for {pattern!r}; on the screen: {self.seen!r}")
            self.seen += os.read(self.screen, 65536).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return found[0]


@pytest.fixture
def terminal(host) -> Iterator[Terminal]:
    terminal = Terminal(host)
    yield terminal
    with contextlib.suppress(OSError):
        terminal.type("\rexit\rexit\r")
    terminal.process.kill()
    terminal.process.wait()
    os.close(terminal.screen)


def test_ctrl_c_reaches_the_command_and_only_its_own_answer_counts(terminal) -> None:
    terminal.run(
        "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    )
    terminal.expect("ready\r\n")
    terminal.type(CTRL_C)
    terminal.expect("caught\r\n")
    terminal.expect("outer> ")
    terminal.type("echo code $?\r")
    terminal.expect("code 9\r\n")


def test_ctrl_c_ends_a_command_as_it_would_plainly(terminal) -> None:
    terminal.run("sh", "-c", "echo ready; exec sleep 100")
    terminal.expect("ready\r\n")
    terminal.type(CTRL_C)
    terminal.expect("outer> ")
    terminal.type("echo code $?\r")
    terminal.expect("code 130\r\n")


def test_ctrl_z_stops_it_and_fg_lets_it_go_on(terminal) -> None:
    terminal.run("sh", "-c", "echo ready; read line; echo got $line; exit 4")
    terminal.expect("ready\r\n")
    terminal.type(CTRL_Z)
    terminal.expect("Stopped")
    terminal.expect("outer> ")
    terminal.type("jobs\r")
    terminal.expect("Stopped")
    terminal.expect("outer> ")
    terminal.type("fg\r")
    terminal.wait_for(lambda: terminal.foreground != terminal.process.pid)
    terminal.wait_for(lambda: terminal.is_in_line_mode)
    terminal.type("words\r")
    terminal.expect("got words\r\n")
    terminal.expect("outer> ")
    terminal.type("echo code $?\r")
    terminal.expect("code 4\r\n")


def test_the_window_has_its_size_inside(terminal) -> None:
    terminal.run("stty", "size")
    terminal.expect("33 99\r\n")


def test_a_shell_inside_has_jobs_of_its_own(terminal) -> None:
    terminal.run("env", r"PS1=inner\041 ", "bash", "--norc", "--noprofile", "-i")
    terminal.expect("inner! ")
    terminal.type("sleep 100\r")
    terminal.wait_for(lambda: terminal.foreground_program == "sleep")
    terminal.type(CTRL_Z)
    terminal.expect("Stopped")
    terminal.expect("inner! ")
    terminal.type("kill -KILL %1; disown %1; exit 5\r")
    terminal.expect("outer> ")
    terminal.type("echo code $?\r")
    terminal.expect("code 5\r\n")


def test_lines_wait_while_a_program_has_the_terminal_for_itself(terminal, nginx) -> None:
    script = """
import sys, termios, tty, urllib.request
before = termios.tcgetattr(0)
tty.setraw(0)
urllib.request.urlopen("http://www.example/").read()
sys.stdin.read(1)
print("raw until here", end="\\r\\n", flush=True)
termios.tcsetattr(0, termios.TCSANOW, before)
"""
    events = terminal.host.scratch / "events"
    terminal.run("/usr/bin/python3", "-c", script, options=("-o", str(events)))
    terminal.wait_for(lambda: terminal.foreground != terminal.process.pid)
    terminal.wait_for(lambda: not terminal.is_in_line_mode)
    terminal.wait_for(lambda: events.exists() and "flow.close" in events.read_text())
    terminal.type("k")
    assert "mitml4: " not in terminal.expect(r"raw until here\r\n")
    terminal.expect(r"mitml4: www\.example:80  http/1")


def test_a_table_is_live_where_the_command_writes_elsewhere(terminal, nginx) -> None:
    script = "while sleep 0.2; do curl -s http://www.example/; done >output"
    terminal.host.home.chmod(0o777)
    argv = terminal.host.argv("sh", "-c", script, options=("--table",))
    terminal.type(shlex.join(argv[argv.index("setpriv") :]) + " >/dev/null 2>&1\r")
    terminal.expect(r"\x1b\[\?1049h")
    terminal.expect(r"www\.example:80")
    terminal.type(CTRL_C)
    terminal.expect(r"\x1b\[\?1049l")
    terminal.expect("outer> ")
