"""A line on standard error for each closed flow, shown beside the output of a command.

    mitml4: www.example:443  tls › http/2  200 GET /  ↑ 1.2k ↓ 34M
    mitml4: other.example  refused (--allow)

The second is a name that was not looked up, once.

The terminal is the command's. While a program uses it in another mode than line mode (an editor, a
pager, a shell at its prompt), the lines wait.
"""

from __future__ import annotations

import os
import sys
import termios
from collections import deque
from typing import Final

import trio

from mitml4.events import DnsRefused, FlowClose
from mitml4.printable import printable
from mitml4.screen.columns import short_size
from mitml4.screen.terminal import Color, wants_color
from mitml4.sinks.files import write_failure
from mitml4.sinks.table.model import Row, TableModel
from mitml4.sinks.updates import Published
from mitml4.whole_writes import write_all

__all__ = ["FlowLines", "line_of"]

_MAX_WAITING: Final = 1000
_MAX_REFUSED: Final = 1000
_POLL_INTERVAL_S: Final = 0.2
_DRAIN_TIMEOUT_S: Final = 1.0
_LFLAG: Final = 3  # index of tcgetattr's list
_DIM, _RESET = "\x1b[2m", "\x1b[0m"


def line_of(row: Row) -> str:
    """The line for a closed flow."""
    host = f"[{row.server}]" if ":" in row.server else row.server
    parts = [
        f"{host}:{row.port}",
        " › ".join(row.stack),
        row.text,
        f"↑ {short_size(row.up)} ↓ {short_size(row.down)}",
    ]
    return "mitml4: " + "  ".join(filter(None, parts))


class FlowLines:
    """A sink that writes to standard error."""

    name = "standard error"
    wants = (*TableModel.wants, DnsRefused)

    def __init__(self, color: Color = "auto") -> None:
        self.dropped = 0
        self._model = TableModel()
        self._descriptor = sys.stderr.fileno()
        self._is_terminal = os.isatty(self._descriptor)
        self._is_dim = wants_color(color, sys.stderr)
        self._waiting: deque[str] = deque()
        self._refused: set[str | None] = set()
        self._news = trio.Event()
        self._closing = False
        self._timeout = trio.CancelScope()

    def publish(self, event: Published) -> None:
        if isinstance(event, DnsRefused):
            self._tell_refused(event.name)
            return
        self._model.add(event)
        if not isinstance(event, FlowClose) or not (row := self._model.row(event.flow)):
            return
        self._tell(line_of(row))

    def _tell_refused(self, name: str | None) -> None:
        if name in self._refused or len(self._refused) >= _MAX_REFUSED:
            return
        self._refused.add(name)
        shown = "a DNS query without a host name" if name is None else printable(name)
        self._tell(f"mitml4: {shown}  refused (--allow)")

    def _tell(self, line: str) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(f"{_DIM}{line}{_RESET}\n" if self._is_dim else f"{line}\n")
        self._news.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        with self._timeout:
            while self._waiting or not self._closing:
                await self._news.wait()
                self._news = trio.Event()
                while self._waiting:
                    await self._wait_for_the_terminal()
                    lines = "".join(self._waiting)
                    self._waiting.clear()
                    await self._write(lines.encode("utf-8", "backslashreplace"))

    async def aclose(self) -> None:
        """Write the lines that wait."""
        self._closing = True
        self._timeout.deadline = trio.current_time() + _DRAIN_TIMEOUT_S
        self._news.set()

    async def _wait_for_the_terminal(self) -> None:
        while self._is_terminal and not self._closing and self._is_taken():
            with trio.move_on_after(_POLL_INTERVAL_S):
                await self._news.wait()
                self._news = trio.Event()

    def _is_taken(self) -> bool:
        try:
            return not termios.tcgetattr(self._descriptor)[_LFLAG] & termios.ICANON
        except termios.error:  # it has hung up
            return False

    async def _write(self, data: bytes) -> None:
        try:
            await trio.to_thread.run_sync(write_all, self._descriptor, data, abandon_on_cancel=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_failure(self.name, error) from error
