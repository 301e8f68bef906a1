"""Settings of a process that carries many flows."""

from __future__ import annotations

import gc
import resource
import sys
from threading import Event, Thread
from typing import Final

from mitml4.errors import MachineError
from mitml4.net import urgent

__all__ = ["check_limits", "least_descriptors", "prepare_process"]

_SWITCH_S: Final = 0.0005
"""How long a thread that writes events may keep the interpreter lock each time that a flow releases
it for a system call. Python's default is ten times that, and a response takes about ten calls.
"""
_COLLECT: Final = (5_000, 5, 1_000)
"""gc.set_threshold: collect the young generation often and the old one rarely, since that takes
160 ms with 3,000 open flows. A closed flow leaves no reference cycles."""
_MAX_DESCRIPTORS: Final = 1 << 20
_LEAST_DESCRIPTORS: Final = 64
"""With fewer, the shares of connections leave no room for any (flows/crowd.py)."""
_THREADS: Final = 2
"""One that writes events, and one that makes keys: with fewer, no session comes to its end."""


def prepare_process() -> None:
    """Set the limit of descriptors, the interpreter's switch interval and garbage collection."""
    _allow_descriptors()
    urgent.listen_for_it()
    sys.setswitchinterval(_SWITCH_S)
    gc.set_threshold(*_COLLECT)
    gc.freeze()  # modules stay: collections need not traverse them


def check_limits(workers: int, *, at_once: bool) -> None:
    """Raise MachineError where the user's limits are too low for a session in so many processes,
    which it starts `at_once`, or else if it can. Call it before the session has done anything."""
    _check_descriptors(least_descriptors(workers))
    tasks = _THREADS + (workers > 1)  # the process that starts the others
    if at_once:
        tasks += 2 * (workers - 1)  # a worker is a process and a thread
    _check_tasks(tasks)


def least_descriptors(workers: int) -> int:
    """How many descriptors a session in so many processes needs to carry any connection."""
    return _LEAST_DESCRIPTORS + 3 * (workers - 1)


def _check_descriptors(needed: int) -> None:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < needed:
        raise MachineError(
            f"no more than {allowed} files may be open at a time, and a session needs {needed}",
            hint="ulimit -n 1024",
        )


def _check_tasks(count: int) -> None:
    """Try whether so many processes and threads may be started, which count alike. For root the
    limit counts once it has become another user."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    trial = Event()
    started: list[Thread] = []
    try:
        if 0 <= allowed <= count:
            raise RuntimeError(allowed)
        for _ in range(count):
            started.append(Thread(target=trial.wait, name="trial"))
            started[-1].start()
    except RuntimeError:
        started = [each for each in started if each.ident]
        reason = f"cannot start the {count} processes and threads that a session needs"
        raise MachineError(reason, hint="ulimit -u") from None
    finally:
        trial.set()
        for each in started:
            each.join()


def _allow_descriptors() -> None:
    """Raise the limit as far as allowed: a flow takes two, and two pipes while it is busy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (_MAX_DESCRIPTORS, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        except (ValueError, OSError):
            continue
        return
