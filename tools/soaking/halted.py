"""`python -m soaking.halted FILE STEP ACT ARGUMENT…`: mitml4, halted by SIGSTOP before it begins.

What its start imports is imported before, so that whoever lets its system calls fail from there on
reaches those of mitml4, and not those of Python's import.

At its step of this number (0: never) its tasks are cancelled (`cancel`), or it gets a signal
(`SIGINT`). The file tells how many steps there were, or, by a 0, that it has come to that one.
"""

from __future__ import annotations

import os
import pkgutil
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import trio

import mitml4
from mitml4.cli import main as command_line

T = TypeVar("T")
_NOT_FOR_A_START = ("mitml4.__main__", "mitml4.lab", "mitml4.cli.demo", "mitml4.view")


class _Steps(trio.abc.Instrument):
    """Counts the steps of all tasks, and acts at one of them."""

    def __init__(self, act_at: int, act: Callable[[], None]) -> None:
        self.count = 0
        self._act_at = act_at
        self._act = act

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1
        if self.count == self._act_at:
            self._act()


def _run_interrupted(
    run: Callable[..., T],
    told: int,
    pid: int,
    at: int,
    act: str,
    function: Callable[..., Awaitable[T]],
    *arguments: Any,
    **options: Any,
) -> T | None:
    """In place of trio.run."""
    if os.getpid() != pid:  # of a worker
        return run(function, *arguments, **options)
    scope = trio.CancelScope()

    def interrupt() -> None:
        os.write(told, b"0")
        if act == "cancel":
            scope.cancel()
        else:
            os.kill(os.getpid(), signal.Signals[act])

    async def whole() -> T | None:
        with scope:
            return await function(*arguments)
        return None

    steps = _Steps(at, interrupt)
    outcome = run(whole, instruments=[steps], **options)
    if not at:
        os.write(told, b"%d" % steps.count)
    return outcome


def main() -> None:
    for module in pkgutil.walk_packages(mitml4.__path__, "mitml4."):
        if not module.name.startswith(_NOT_FOR_A_START):
            import_module(module.name)
    told, at, act = sys.argv[1:4]
    if act:
        # open, since a session gives up the right to open it
        file = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        setattr(trio, "run", partial(_run_interrupted, trio.run, file, os.getpid(), int(at), act))  # noqa: B010
    sys.argv[:4] = ["mitml4"]
    os.kill(os.getpid(), signal.SIGSTOP)
    command_line.main()


if __name__ == "__main__":
    main()
