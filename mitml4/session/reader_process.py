"""A process that reads captures for the first one, and ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from mitml4.dataclass import dataclass

__all__ = ["STOP", "ReaderProcess"]

STOP: Final = signal.SIGUSR1
"""Tells a process to read no further, and to tell what it has read."""

_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, STOP)
"""Signals that the processes do not act on, which a terminal sends to all; STOP, as long as there
is nothing to read."""


@dataclass(slots=True, eq=False)
class ReaderProcess:
    """Kill it, if it is not lost."""

    process: BaseProcess
    connection: Connection

    @classmethod
    def start(
        cls, serve: Callable[[Connection], None], others: Iterable[ReaderProcess]
    ) -> ReaderProcess:
        """It calls `serve` with its end of the connection. `others`: those that run already. Raises
        OSError if a limit forbids it."""
        context = get_context("fork")  # with all that is imported and configured by now
        ours, theirs = context.Pipe()
        not_theirs = [*(each.connection for each in others), ours]
        child = context.Process(target=_serve, args=(serve, theirs, not_theirs), daemon=True)
        before = signal.signal(STOP, signal.SIG_IGN)  # it may come before the child has begun
        try:
            child.start()
        except OSError:
            ours.close()
            raise
        finally:
            signal.signal(STOP, before)
            theirs.close()
        return cls(child, ours)

    def stop(self) -> None:
        if self.process.pid:
            os.kill(self.process.pid, STOP)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def how_ended(self) -> str:
        """It has closed its end of the connection: why."""
        self.process.join()
        self.connection.close()
        code = self.process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(
    serve: Callable[[Connection], None], connection: Connection, others: Iterable[Connection]
) -> None:
    for each in others:
        each.close()  # or it would not be noticed that the first process ends
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    try:
        serve(connection)
    except (EOFError, OSError):
        return
