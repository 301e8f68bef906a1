"""What a session needs of the user's limits, tried in children."""

from __future__ import annotations

import os
import resource
import signal

import pytest

from mitml4.errors import MachineError
from mitml4.net import processes
from mitml4.net.trial.child import run_in_child
from mitml4.session.flows.crowd import Limits
from mitml4.session.process import check_limits, least_descriptors

TIMEOUT_S = 20.0
NOBODY = 65534
UNUSED = 60_321


def checked(limit: int, value: int, workers: int, *, at_once: bool = True) -> str:
    """What is wrong where a limit has this value, and the hint; nothing: it is enough."""

    def work() -> str:
        resource.setrlimit(limit, (value, value))
        if limit == resource.RLIMIT_NPROC and os.geteuid() == 0:
            processes.become_user(NOBODY, NOBODY)
        try:
            check_limits(workers, at_once=at_once)
        except MachineError as error:
            return f"{error.message}; {error.hint}"
        return ""

    (found,) = run_in_child(work, timeout_s=TIMEOUT_S)
    return found


@pytest.mark.parametrize("workers", [1, 2, 64])
def test_a_session_that_could_serve_nobody_is_refused(workers: int) -> None:
    needed = least_descriptors(workers)
    too_few = f"no more than {needed - 1} files may be open at a time, and a session needs {needed}"
    for at_once in (True, False):
        found = checked(resource.RLIMIT_NOFILE, needed - 1, workers, at_once=at_once)
        assert found == f"{too_few}; ulimit -n 1024"
        assert checked(resource.RLIMIT_NOFILE, needed, workers, at_once=at_once) == ""


@pytest.mark.parametrize("workers", [1, 2, 9, 64])
def test_with_as_many_descriptors_as_it_needs_it_serves_somebody(workers: int) -> None:
    limits = Limits.of(least_descriptors(workers), 1 << 30, workers=workers)
    assert limits.carried >> 2 > 0  # the share of one client for one server


@pytest.mark.parametrize(
    ("workers", "at_once", "needed"), [(1, True, 2), (3, False, 3), (3, True, 7)]
)
def test_a_session_that_may_not_start_what_it_needs_is_refused(workers, at_once, needed) -> None:
    reason = f"cannot start the {needed} processes and threads that a session needs; ulimit -u"
    assert checked(resource.RLIMIT_NPROC, needed, workers, at_once=at_once) == reason
    _, usual = resource.getrlimit(resource.RLIMIT_NPROC)
    assert checked(resource.RLIMIT_NPROC, usual, workers, at_once=at_once) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="root can become a user who has no process")
def test_the_processes_that_a_user_has_count_too() -> None:
    def refused() -> bool:
        try:
            check_limits(3, at_once=True)
        except MachineError:
            return True
        return False

    def work() -> list[bool]:
        processes.become_user(UNUSED, UNUSED)
        resource.setrlimit(resource.RLIMIT_NPROC, (8, 8))
        alone = refused()
        if (other := os.fork()) == 0:
            signal.pause()
        beside = refused()
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
        return [alone, beside]

    assert run_in_child(work, timeout_s=TIMEOUT_S) == [[False, True]]
