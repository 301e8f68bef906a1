"""Run functions in child processes, so that their changes to process and network affect nothing
else.

A child ends with its function, or with us: nothing has to be undone.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import signal
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from mitml4.errors import MachineError
from mitml4.net import processes

__all__ = ["run_in_child"]

T = TypeVar("T")

_CHUNK: Final = 65536


def run_in_child(*works: Callable[[], T], timeout_s: float) -> list[T]:
    """Run each of `works` in a child process, in parallel, and return their results.

    The exception of a child is raised here (results are pickled); MachineError if a child is killed
    or not done in time. No child is left. Call it while this process has one thread.
    """
    deadline = time.monotonic() + timeout_s
    children: list[tuple[int, int]] = []
    try:
        # if one fails to start, the ones before it are in the list
        children.extend(map(_start, works))
        return [_outcome(_read(reader, deadline), timeout_s) for _, reader in children]
    finally:
        for pid, reader in children:
            os.close(reader)
            os.kill(pid, signal.SIGKILL)  # it has answered, or will not
            os.waitpid(pid, 0)


def _start(work: Callable[[], object]) -> tuple[int, int]:
    """Fork; returns the child's process id, and a descriptor for its result. Raises
    MachineError."""
    reader, writer = map(_out_of_the_way, os.pipe())
    parent = os.getpid()
    try:
        if (pid := processes.fork()) == 0:
            _answer(work, writer, parent)
    except MachineError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return pid, reader


def _out_of_the_way(descriptor: int) -> int:
    """The same descriptor, but not as a standard stream, which our caller may have closed."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _answer(work: Callable[[], object], writer: int, parent: int) -> NoReturn:
    """Run in the child."""
    try:
        processes.die_with_parent(signal.SIGKILL, parent)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(nowhere, standard)
        try:
            answer: tuple[object, Exception | None] = (work(), None)
        except Exception as error:
            answer = (None, error)
        with os.fdopen(writer, "wb") as out:
            out.write(pickle.dumps(answer))
    finally:
        os._exit(0)


def _outcome(answer: bytes | None, timeout_s: float) -> Any:
    if answer is None:
        raise MachineError(f"the test did not end within {timeout_s:g} s", hint="uptime")
    if not answer:
        raise MachineError("the test ended without a result", hint="sudo dmesg | tail")
    outcome, failure = pickle.loads(answer)
    if failure is not None:
        raise failure
    return outcome


def _read(reader: int, deadline: float) -> bytes | None:
    """Everything up to the end; None if that does not arrive in time."""
    answer = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (chunk := os.read(reader, _CHUNK)):
            return answer
        answer += chunk
    return None
