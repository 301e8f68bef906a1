"""The live table of a session on a terminal.

`publish` only updates the model. A few times a second, the rows in view are copied, and a thread
renders and draws them. While a slow terminal is busy with one frame, the next is not started. No
flow waits for the terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Final, Literal

import trio
from rich.style import Style

from mitml4.keyboard import keyboard, keys_in
from mitml4.sinks.commands import Ask, Measure, Stop
from mitml4.sinks.table.model import Row, TableModel
from mitml4.sinks.table.terminal import Canvas, color_system_for
from mitml4.sinks.table.view import Mode, body_height, help_page_count, render
from mitml4.sinks.updates import Published

__all__ = ["LiveTable"]

_FRAME_S: Final = 0.2
_DRAIN_TIMEOUT_S: Final = 1.0
_MAX_HELD_LINES: Final = 1000

_STYLES: Final = {
    "": Style.null(),
    "name": Style(bold=True),
    "title": Style(reverse=True),
    "footer": Style(reverse=True),
    "open": Style(color="green"),
    "passed": Style(color="yellow"),
    "closed": Style(dim=True),
    "failed": Style(color="red"),
    "blocked": Style(color="magenta"),
}

_UP: Final = {b"\x1b[A", b"\x1bOA", b"k"}
_DOWN: Final = {b"\x1b[B", b"\x1bOB", b"j"}
_PAGE_UP: Final = {b"\x1b[5~"}
_PAGE_DOWN: Final = {b"\x1b[6~"}
_FIRST: Final = {b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"g"}
_LAST: Final = {b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"G"}


class LiveTable:
    """A sink that draws on a terminal."""

    name = "the terminal"
    wants = TableModel.wants

    def __init__(
        self,
        ask: Ask,
        color: Literal["auto", "always", "never"] = "auto",
        *,
        terminal: int | None = None,
    ) -> None:
        """`ask` handles commands to the session.

        Draws on standard output and reads the keyboard. Or draws on `terminal`, and does not read
        its keyboard.
        """
        self.dropped = 0
        self._model = TableModel()
        self._ask = ask
        self._has_keys = terminal is None
        where = sys.stdout.fileno() if terminal is None else terminal
        self._canvas = Canvas(where, _STYLES, color_system_for(color))
        self._has_keyboard = False
        self._only_failures = False
        self._help_page: int | None = None
        """The page of the keys that is shown."""
        self._frozen: TableModel | None = None
        """The model that is shown while paused."""
        self._skip = 0
        """Rows between the newest and the last that is shown; 0: follow the newest."""
        self._rows_before = 0
        self._redraw = trio.Event()
        self._closing = False
        self._timeout = trio.CancelScope()
        self._limiter = trio.CapacityLimiter(1)

    def publish(self, event: Published) -> None:
        self._model.add(event)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        gone = False
        with _stderr_held(), keyboard() if self._has_keys else contextlib.nullcontext() as keys:
            async with trio.open_nursery() as nursery:
                if keys is not None:
                    self._has_keyboard = True
                    nursery.start_soon(self._read_keys, keys)
                task_status.started()
                try:
                    with self._timeout:
                        await self._in_thread(self._canvas.enter)
                        await self._draw_what_comes()
                except OSError:  # the window was closed, the connection was lost
                    gone = True
                finally:
                    await self._give_back()
                nursery.cancel_scope.cancel()
        if gone:
            raise BrokenPipeError

    async def aclose(self) -> None:
        """Restore the terminal at once."""
        self._closing = True
        self._timeout.deadline = trio.current_time() + _DRAIN_TIMEOUT_S
        self._redraw.set()

    async def _give_back(self) -> None:
        """Restore the terminal, if it still accepts output."""
        # In another thread: the one that draws may still be blocked.
        own = trio.CapacityLimiter(1)
        with trio.move_on_after(_DRAIN_TIMEOUT_S, shield=True), contextlib.suppress(OSError):
            await trio.to_thread.run_sync(self._canvas.leave, abandon_on_cancel=True, limiter=own)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)

    async def _draw_what_comes(self) -> None:
        while not self._closing:
            await self._draw()
            self._redraw = trio.Event()
            with trio.move_on_after(_FRAME_S):
                await self._redraw.wait()

    async def _draw(self) -> None:
        width, height = size = self._canvas.size
        model = replace(self._frozen or self._model)
        rows = self._rows_in_view(body_height(height))
        mode = Mode(
            keyboard=self._has_keyboard,
            paused=self._frozen is not None,
            failures=self._only_failures,
            help_page=self._help_page,
        )
        picture = partial(render, model, rows, width, height, mode)
        await self._in_thread(lambda: self._canvas.draw(picture(), size))

    def _rows_in_view(self, count: int) -> list[Row]:
        """Copies of the rows in view, with current bytes. While scrolled back, the view stays."""
        model = self._frozen or self._model
        if self._skip:
            self._skip += max(0, len(model) - self._rows_before)
        self._rows_before = len(model)
        self._skip = min(self._skip, max(0, len(model) - count))
        rows = model.rows(count, skip=self._skip, failures=self._only_failures)
        if self._frozen is None:
            self._ask(Measure(tuple(row.flow for row in rows if row.state in ("open", "failed"))))
        return [replace(row) for row in rows]

    async def _read_keys(self, descriptor: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            try:
                data = os.read(descriptor, 1024)
            except OSError:
                return
            if not data:
                return
            for key in keys_in(data):
                self._press(key)
            self._redraw.set()

    def _press(self, key: bytes) -> None:
        if self._help_page is not None:
            self._turn_help_page(self._help_page + 1)
            return
        page = max(1, body_height(self._canvas.size[1]) - 1)
        if key in (b"q", b"Q"):
            self._ask(Stop())
        elif key in (b"p", b" "):
            self._frozen = self._model.copy() if self._frozen is None else None
        elif key == b"?":
            self._turn_help_page(0)
        elif key == b"!":
            self._only_failures, self._skip = not self._only_failures, 0
        elif key in _UP:
            self._scroll(1)
        elif key in _DOWN:
            self._scroll(-1)
        elif key in _PAGE_UP:
            self._scroll(page)
        elif key in _PAGE_DOWN:
            self._scroll(-page)
        elif key in _FIRST:
            self._scroll(len(self._model))
        elif key in _LAST:
            self._skip = 0

    def _turn_help_page(self, page: int) -> None:
        """Show this page of the keys, or the flows after the last page."""
        self._help_page = page if page < help_page_count(*self._canvas.size) else None

    def _scroll(self, lines: int) -> None:
        self._skip = max(0, self._skip + lines)


class _Held(io.TextIOBase):
    """Keeps the last lines that are written."""

    def __init__(self) -> None:
        self.pieces: deque[str] = deque(maxlen=_MAX_HELD_LINES)

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


@contextlib.contextmanager
def _stderr_held() -> Iterator[None]:
    """Hold back what is written to standard error until the table is closed."""
    if not sys.stderr.isatty():
        yield
        return
    held = _Held()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stderr.write("".join(held.pieces))
            sys.stderr.flush()
