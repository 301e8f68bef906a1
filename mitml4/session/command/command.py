"""The command of `run`: its start, its signals, its end, and the end of its descendants.

The command is in our process group, so signals from the terminal reach it directly. Signals to this
process only are forwarded. When the command stops (Ctrl-Z), this process stops as well, since the
shell waits for this process.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Mapping
from typing import Final

import trio

from mitml4.net import processes
from mitml4.net.namespace.launch import Launch, status_of
from mitml4.signals import ending_signals

__all__ = ["Command"]

_FROM_THE_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
_FROM_OTHERS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Command:
    """A command that has been forked and waits until `go`."""

    def __init__(self, launch: Launch, environ: Mapping[str, str]) -> None:
        """`environ` is the environment of the command."""
        self._launch = launch
        self._environ = environ
        self._pid = launch.pid
        self._to_end_us = ending_signals()
        self._interrupt, self.interruptions = trio.open_memory_channel[str](math.inf)
        """The names of signals that come after the command has ended."""
        self.status: int | None = None
        """The exit status as a shell reports it; None until the command has ended."""
        self.told_to_end = False
        """A signal to this process asked it to end. Its descendants are then not waited for."""
        self.ended = trio.Event()
        self.left_nobody = trio.Event()
        """The command and all of its descendants have ended."""

    def go(self) -> None:
        """Execute it. Raises CommandError if that fails; the process has ended then."""
        self._launch.go(self._environ)

    async def watch(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Handle signals and ended processes. Until cancelled."""
        numbers = (signal.SIGCHLD, *_FROM_THE_TERMINAL, *_FROM_OTHERS)
        with trio.open_signal_receiver(*numbers) as received:
            task_status.started()
            self._reap()
            async for number in received:
                if number == signal.SIGCHLD:
                    self._reap()
                else:
                    self._pass_on(signal.Signals(number))

    def terminate(self) -> None:
        """Send SIGTERM, if it is running."""
        if self.status is None:
            os.kill(self._pid, signal.SIGTERM)

    def _reap(self) -> None:
        """Handle every child that has ended, and a stop of the command."""
        while True:
            try:
                changed = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG)
            except ChildProcessError:
                self.left_nobody.set()
                return
            if changed is None:
                if processes.has_only_helpers():
                    self.left_nobody.set()
                return
            if changed.si_code != os.CLD_STOPPED:
                processes.was_reaped(changed.si_pid)
            if changed.si_code == os.CLD_STOPPED:
                if changed.si_pid == self._pid:
                    self._stop_as_well(signal.Signals(changed.si_status))
            elif changed.si_pid == self._pid:
                self.status = status_of(changed)
                self.ended.set()

    def _stop_as_well(self, number: signal.Signals) -> None:
        """Stop this process until the shell continues it, then continue the command."""
        with contextlib.suppress(OSError):  # SIGSTOP has no handler
            handler = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        if number != signal.SIGSTOP:
            signal.signal(number, handler)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(self._pid), signal.SIGCONT)

    def _pass_on(self, number: signal.Signals) -> None:
        if self.status is not None:
            if number in self._to_end_us:
                self._interrupt.send_nowait(number.name)
            return
        if number in _FROM_THE_TERMINAL and _has_the_terminal():
            return  # the terminal sent it to the command as well
        self.told_to_end |= number in self._to_end_us and number != signal.SIGINT
        os.kill(self._pid, number)


def _has_the_terminal() -> bool:
    """Whether our process group is the terminal's foreground group, which gets Ctrl-C."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
