"""What a process is to its parent and its children, tried in children."""

from __future__ import annotations

import ast
import os
import resource
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mitml4.errors import MachineError
from mitml4.net.processes import (
    become_subreaper,
    children,
    die_with_parent,
    fork,
    fork_helper,
    fork_unwarned,
    has_only_helpers,
    show_as,
    wait_for_helpers,
)
from mitml4.net.trial.child import run_in_child

TIMEOUT_S = 20.0


def test_a_child_whose_parent_has_ended_already_gets_the_signal_at_once() -> None:
    somebody_else = os.getpid()  # for a grandchild, which is in a child of ours

    def work() -> str:
        reader, writer = os.pipe()
        if fork() == 0:
            die_with_parent(signal.SIGKILL, somebody_else)
            os.write(writer, b"lives")
            os._exit(0)
        os.close(writer)
        return os.read(reader, 5).decode()

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [""]


def test_a_name_with_spaces_is_no_reason_to_fail_where_warnings_are_errors() -> None:
    def work() -> int:
        show_as("a b c")  # Python takes the 20th word of /proc/self/stat for the count of threads
        warnings.simplefilter("error")
        if not (child := fork_unwarned()):
            os._exit(0)
        return os.waitpid(child, 0)[1]

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [0]


def test_it_gets_the_signal_when_its_parent_ends() -> None:
    def work() -> bytes:
        reader, writer = os.pipe()
        if (child := fork()) == 0:
            parent = os.getpid()
            if fork() == 0:
                die_with_parent(signal.SIGKILL, parent)
                os.write(writer, b"ready")
                signal.pause()
            os.close(writer)
            os._exit(0 if os.read(reader, 5) == b"ready" else 1)
        os.close(writer)
        assert os.waitpid(child, 0)[1] == 0
        return os.read(reader, 1)  # ends when nobody writes any more

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [b""]


def test_a_subreaper_gets_the_orphans_among_its_descendants() -> None:
    def work() -> bool:
        become_subreaper()
        ours = os.getpid()
        reader, writer = os.pipe()
        if (child := fork()) == 0:
            if fork() == 0:
                os.read(reader, 1)
                os._exit(0 if os.getppid() == ours else 1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        os.write(writer, b"x")
        return os.wait()[1] == 0

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [True]


def helped() -> socket.socket:
    """Start a helper that does nothing; returns its channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        if not fork_helper(ours):
            ours.close()
            theirs.recv(1)
            os._exit(0)
    return ours


def test_a_helper_that_cannot_leave_its_session_ends(monkeypatch) -> None:
    """An error would end what was going on before the fork, a second time."""

    def fail() -> None:
        raise PermissionError

    def work() -> int:
        starter = os.getpid()
        try:
            helped().close()
        except PermissionError:
            os._exit(2 if os.getpid() != starter else 3)
        return os.waitstatus_to_exitcode(os.wait()[1])

    monkeypatch.setattr(os, "setsid", fail)
    assert run_in_child(work, timeout_s=TIMEOUT_S) == [1]


def test_helpers_are_reaped_also_where_their_channels_are_open() -> None:
    def work() -> tuple[int, list[int]]:
        channel, closed = helped(), helped()
        closed.close()
        count = len(children())
        wait_for_helpers(TIMEOUT_S)
        return count, [*children(), *channel.recv(1)]

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [(2, [])]


def test_a_helper_is_waited_for_whatever_the_number_of_its_descriptor() -> None:
    """A session has thousands of descriptors, and select(2) takes none above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = 2000
    if hard < many:
        pytest.skip(f"ulimit -Hn {many}")

    def work() -> list[int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many), hard))
        channel = helped()
        for _ in range(1100):
            os.dup(0)
        wait_for_helpers(TIMEOUT_S)
        return [*children(), *channel.recv(1)]

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [[]]


def test_a_stopped_helper_ends_with_the_process_that_it_helps() -> None:
    def work() -> bool:
        reader, writer = os.pipe()
        if (child := fork()) == 0:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if not (helper := fork_helper(ours)):
                ours.close()
                theirs.send(b"ready")
                theirs.recv(1)
                os._exit(0)
            theirs.close()
            ours.recv(5)
            os.kill(helper, signal.SIGSTOP)
            os.waitid(os.P_PID, helper, os.WSTOPPED)
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(writer)
        os.waitpid(child, 0)
        return os.read(reader, 1) == b""  # the helper had the other end

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [True]


@pytest.mark.parametrize("lists_children", [True, False])
def test_helpers_are_told_from_other_children(monkeypatch, lists_children) -> None:
    if not lists_children:
        read = Path.read_text

        def read_text(path: Path) -> str:
            if path.name == "children":
                raise FileNotFoundError
            return read(path)

        monkeypatch.setattr(Path, "read_text", read_text)

    def work() -> list[bool]:
        channel = helped()
        found = [has_only_helpers()]
        if (child := fork()) == 0:
            signal.pause()
        found.append(has_only_helpers())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        channel.close()
        return [*found, has_only_helpers()]

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [[True, False, True]]


def test_no_process_more_is_an_error(monkeypatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(MachineError, match="cannot start a process: Resource") as caught:
        fork()
    assert caught.value.hint == "ulimit -u"


def test_a_part_of_the_command_line_is_masked_wherever_it_stands() -> None:
    script = (
        "import sys; from pathlib import Path; from mitml4.net.processes import mask_arguments\n"
        "text = b'x://user:word@y'; mask_arguments(text, 4, 13); mask_arguments(b'absent', 0, 6)\n"
        "sys.stdout.buffer.write(Path('/proc/self/cmdline').read_bytes())\n"
        "print(sys.argv[1:])"
    )
    given = ["--via", "x://user:word@y", "--via=x://user:word@y", "user:word"]
    told = subprocess.check_output([sys.executable, "-c", script, *given])
    masked = b"--via\0x://*********@y\0--via=x://*********@y\0user:word\0"
    assert masked + f"{given}\n".encode() in told


def test_a_process_shows_another_command_line_and_name() -> None:
    script = (
        "from pathlib import Path; from mitml4.net.processes import show_as\n"
        "show_as('a title that is longer than names')\n"
        "print(repr([Path('/proc/self', each).read_bytes() for each in ('cmdline', 'comm')]))"
    )
    told = subprocess.check_output([sys.executable, "-c", script, "x" * 99], text=True)
    cmdline, name = ast.literal_eval(told)
    assert cmdline.rstrip(b"\0") == b"a title that is longer than names"
    assert name == b"a title that is\n"
