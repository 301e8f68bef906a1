"""Work in a child: what comes back, and what does not stay."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from mitml4.errors import MachineError
from mitml4.net import processes
from mitml4.net.trial.child import run_in_child

TIMEOUT_S = 20.0


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.fixture(autouse=True)
def no_child_stays():
    before = children()
    yield
    assert children() == before


def test_each_answer_comes_in_its_place() -> None:
    works = [lambda: "first", lambda: ["second"], os.getpid]
    *answers, pid = run_in_child(*works, timeout_s=TIMEOUT_S)
    assert answers == ["first", ["second"]]
    assert pid != os.getpid()


def test_works_run_at_the_same_time() -> None:
    """Each waits for the other."""
    here, there = socket.socketpair()

    def meet(own: socket.socket) -> bytes:
        own.sendall(b"x")
        return own.recv(1)

    assert run_in_child(lambda: meet(here), lambda: meet(there), timeout_s=TIMEOUT_S) == [
        b"x",
        b"x",
    ]
    here.close()
    there.close()


def test_an_error_is_raised_here_with_its_hint() -> None:
    def fail() -> None:
        raise MachineError("no nft", hint="apt install nftables")

    with pytest.raises(MachineError, match="no nft") as caught:
        run_in_child(fail, timeout_s=TIMEOUT_S)
    assert caught.value.hint == "apt install nftables"


def test_an_oserror_keeps_its_number() -> None:
    def fail() -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(PermissionError) as caught:
        run_in_child(fail, timeout_s=TIMEOUT_S)
    assert caught.value.errno == 1


def test_a_child_that_is_killed_is_an_error() -> None:
    with pytest.raises(MachineError, match="without a result"):
        run_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL), timeout_s=TIMEOUT_S)


def test_a_child_that_hangs_is_killed() -> None:
    with pytest.raises(MachineError, match=r"within 0\.1 s"):
        run_in_child(lambda: time.sleep(600), timeout_s=0.1)


def test_what_a_child_prints_is_not_seen(capfd) -> None:
    def talk() -> None:
        os.write(1, b"loud")
        os.write(2, b"loud")

    run_in_child(talk, timeout_s=TIMEOUT_S)
    assert capfd.readouterr() == ("", "")


def test_it_works_with_standard_streams_closed() -> None:
    """What is opened then gets their numbers."""

    def inner() -> list[str]:
        for standard in range(3):
            os.close(standard)
        return run_in_child(lambda: "heard", timeout_s=TIMEOUT_S)

    assert run_in_child(inner, timeout_s=TIMEOUT_S) == [["heard"]]


def test_no_process_more_is_an_error() -> None:
    def inner() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.geteuid() == 0:
            processes.become_user(65534, 65534)
        run_in_child(lambda: "never", timeout_s=TIMEOUT_S)

    with pytest.raises(MachineError, match="cannot start a process"):
        run_in_child(inner, timeout_s=TIMEOUT_S)
