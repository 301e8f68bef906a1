"""Work in a process of its own: what it does to itself, be it to its network, nobody else sees.

It ends with the work, however that ends, and with us: nothing has to be undone.
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
    """Run each of `works` in a child of its own, all at once, and hand on what they returned.

    What one raised is raised (all of it is pickled); MachineError when a child dies, or is not done
    in time. None is left behind. Call it while this process has one thread.
    """
    deadline = time.monotonic() + timeout_s
    children: list[tuple[int, int]] = []
    try:
        children.extend(map(_start, works))  # those before one that fails are in it
        return [_outcome(_read(reader, deadline), timeout_s) for _, reader in children]
    finally:
        for pid, reader in children:
            os.close(reader)
            os.kill(pid, signal.SIGKILL)  # it has answered, or never will
            os.waitpid(pid, 0)


def _start(work: Callable[[], object]) -> tuple[int, int]:
    """Fork; the child's process id, and where its answer can be read. Raises MachineError."""
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
    """The same, but none of the standard streams, where our caller has closed one of these."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def _answer(work: Callable[[], object], writer: int, parent: int) -> NoReturn:
    """What the child does."""
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
        raise MachineError(f"the test did not end within {timeout_s:g} s")
    if not answer:
        raise MachineError("the test ended without a result")
    outcome, failure = pickle.loads(answer)
    if failure is not None:
        raise failure
    return outcome


def _read(reader: int, deadline: float) -> bytes | None:
    """Everything up to the end; None, if that does not come in time."""
    answer = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not (chunk := os.read(reader, _CHUNK)):
            return answer
        answer += chunk
    return None
