"""The live table of a session on a terminal.

`publish` only updates the model. A few times a second, if it has changed, a thread renders and
draws the rows in view. While a slow terminal is busy with one frame, the next is not started. No
flow waits for the terminal.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

import trio

from mitml4.events import Event, FlowClose
from mitml4.model.curl import as_curl
from mitml4.protocols.protocol_event import ProtocolEvent
from mitml4.screen.canvas import STYLES, Canvas, color_system_for
from mitml4.screen.detail import REQUESTS, next_request
from mitml4.screen.keyboard import (
    BACK,
    DOWN,
    ENTER,
    FIRST,
    KEY_TIMEOUT_S,
    LAST,
    PAGE_DOWN,
    PAGE_UP,
    UP,
    Keys,
    keyboard,
)
from mitml4.screen.prompt import type_key
from mitml4.sinks.commands import Ask, Command, Measure, PassThrough, Refuse, Reset, Stop
from mitml4.sinks.flow_files import FlowFiles, Saved, save
from mitml4.sinks.jsonl import line_of
from mitml4.sinks.table.browse import SORTS, Look, Painter, Picture
from mitml4.sinks.table.history import History
from mitml4.sinks.table.model import TableModel
from mitml4.sinks.table.view import body_height, help_page_count
from mitml4.sinks.updates import Published

__all__ = ["LiveTable"]

_FRAME_S: Final = 0.2
_DRAIN_TIMEOUT_S: Final = 1.0
_MAX_HELD_LINES: Final = 1000
_FAR: Final = 1 << 30
_ACTIONS: Final = {b"p", b"b", b"x", b"e", b"w"}
"""Keys that do something with the selected flow."""


class LiveTable:
    """A sink that draws on a terminal."""

    name = "the terminal"
    wants = (*TableModel.wants, Event, ProtocolEvent)

    def __init__(
        self,
        ask: Ask,
        color: Literal["auto", "always", "never"] = "auto",
        *,
        terminal: int | None = None,
        files: FlowFiles | None = None,
        qr: Sequence[str] = (),
    ) -> None:
        """`ask` handles commands to the session; `files`, which become ours, write single flows;
        `qr` is the code of the CA page, if there is one.

        Draws on standard output and reads the keyboard. Or draws on `terminal`, and does not read
        its keyboard.
        """
        self.dropped = 0
        self._model = TableModel()
        self._history = History()
        self._painter = Painter(self._history)
        self._picture = Picture([], [], None, ())
        """The last one that was drawn."""
        self._look = Look()
        self._drawn: tuple[object, ...] | None = None
        """Of what the last picture was made; None: it has to be made anew."""
        self._ask = ask
        self._files = files
        self._qr = tuple(qr)
        self._to_write: int | None = None
        """The flow that a key has asked to write."""
        self.written: list[str] = []
        """The names of the files of single flows."""
        self._has_keys = terminal is None
        where = sys.stdout.fileno() if terminal is None else terminal
        self._canvas = Canvas(where, STYLES, color_system_for(color))
        self._has_keyboard = False
        self._frozen: TableModel | None = None
        """The model that is shown while paused."""
        self._redraw = trio.Event()
        self._closing = False
        self._timeout = trio.CancelScope()
        self._limiter = trio.CapacityLimiter(1)

    def publish(self, event: Published) -> None:
        self._model.add(event)
        if self._has_keys and isinstance(event, Event):
            self._history.add(event)

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
                    if self._files:
                        self._files.close()
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
        if self._frozen is None:
            self._ask(Measure(self._picture.visible))
        model, look = replace(self._shown), self._look
        of = (model.version, self._frozen is None, look, size)
        if of == self._drawn and self._picture.is_complete:
            return
        self._drawn = of

        def draw() -> None:
            picture = self._painter.paint(model, look, width, height, keyboard=self._has_keyboard)
            self._picture = picture
            self._canvas.draw(picture.lines, size)

        await self._in_thread(draw)
        if self._look is look:
            self._look = look._replace(top=self._picture.top)

    @property
    def _shown(self) -> TableModel:
        return self._model if self._frozen is None else self._frozen

    async def _read_keys(self, descriptor: int) -> None:
        keys = Keys()
        while True:
            with trio.move_on_after(KEY_TIMEOUT_S if keys.is_partial else math.inf) as waiting:
                await trio.lowlevel.wait_readable(descriptor)
            try:
                data = b"" if waiting.cancelled_caught else os.read(descriptor, 1024)
            except OSError:
                return
            if not data and not waiting.cancelled_caught:
                return
            for key in keys.feed(data):
                self._press(key)
                self._drawn = None
                if self._to_write is not None:
                    await self._write_flow()
            self._redraw.set()

    def _press(self, key: bytes) -> None:
        look = self._look._replace(said="", fault_at=None)
        if look.help_page is not None:
            pages = help_page_count(*self._canvas.size)
            next_page = look.help_page + 1
            self._look = look._replace(help_page=next_page if next_page < pages else None)
        elif look.qr:
            self._look = look._replace(qr=())
        elif look.typed is not None:
            self._look = look._replace(**type_key(look.typed, key, look.filter)._asdict())
        elif key in (b"q", b"Q") and not look.opened:
            self._look = look
            self._ask(Stop())
        else:
            self._look = look
            self._obey(key)

    def _obey(self, key: bytes) -> None:
        """A key that is about flows."""
        look = self._look
        if key == b" ":
            self._frozen = self._model.copy() if self._frozen is None else None
            look = look._replace(paused=self._frozen is not None)
        elif key == b"?":
            look = look._replace(help_page=0)
        elif key == b"c":
            look = look._replace(qr=self._qr, said="" if self._qr else "--no-ca-page: no page")
        elif key == b"!":
            look = look._replace(failures=not look.failures, opened=False)
        elif key == b"/":
            look = look._replace(typed=look.filter.text if look.filter else "", opened=False)
        elif key == b"s":
            orders = list(SORTS)
            after = orders[(orders.index(look.sort) + 1) % len(orders)]
            look = look._replace(sort=after, opened=False)
        elif key == b"f":
            look = look._replace(selected=None, opened=False)
        elif key in ENTER and not look.opened:
            selected = self._selected
            look = look._replace(selected=selected, opened=selected is not None, top=0)
        elif key in REQUESTS and look.opened:
            top = next_request(self._picture.requests, look.top, REQUESTS[key])
            look = look._replace(top=top)
        elif key in BACK or key in (b"q", b"Q"):
            look = look._replace(opened=False)
        elif (lines := self._lines_of(key)) is not None:
            look = self._moved(lines)
        else:
            look = look._replace(said=self._act(key))
        self._look = look

    @property
    def _selected(self) -> int | None:
        """The flow that keys are about: the chosen one, or the one that is marked in its place."""
        look, picture = self._look, self._picture
        if look.selected is None:
            return picture.order[-1] if picture.order else None
        is_there = look.opened or look.selected in picture.order
        return look.selected if is_there else picture.selected

    def _lines_of(self, key: bytes) -> int | None:
        """How far a key moves; None: it does not."""
        page = max(1, body_height(self._canvas.size[1]) - 1)
        for keys, lines in (
            *((UP, -1), (DOWN, 1), (PAGE_UP, -page), (PAGE_DOWN, page)),
            *((FIRST, -_FAR), (LAST, _FAR)),
        ):
            if key in keys:
                return lines
        return None

    def _moved(self, lines: int) -> Look:
        """Scroll in the flow that is shown, or select another one."""
        look, order = self._look, self._picture.order
        if look.opened:
            return look._replace(top=max(0, look.top + lines))
        if not order:
            return look
        selected = self._selected
        at = order.index(selected) if selected in order else len(order) - 1
        at = min(max(at + lines, 0), len(order) - 1)
        is_newest = at == len(order) - 1 and not look.sort
        return look._replace(selected=None if is_newest and lines == _FAR else order[at])

    def _act(self, key: bytes) -> str:
        """Do something with the selected flow. Returns what was done."""
        flow = self._selected
        if flow is None or key not in _ACTIONS:
            return ""
        if key == b"e":
            return self._copy()
        if key == b"w":
            self._to_write = flow
            return f"writing flow {flow} …"
        row = self._shown.row(flow)
        if row is None:
            return f"flow {flow} has left the table"
        match key:
            case b"p":
                return self._asked(PassThrough(row.server))
            case b"b":
                return self._asked(Refuse(row.server))
        return self._asked(Reset(row.flow))

    async def _write_flow(self) -> None:
        """Write the events of a flow, as far as they are kept, to a new file."""
        flow, self._to_write = self._to_write, None
        assert flow is not None
        self._redraw.set()
        events, missing = list(self._history.kept(flow)[1]), self._history.missing(flow)
        files = self._files
        if not events or files is None:
            said = f"cannot write flow {flow}: its events are not kept any more"
        else:
            said, name = await trio.to_thread.run_sync(
                lambda: _written(files, flow, events, missing), abandon_on_cancel=True
            )
            self.written += [name] if name else []
        self._look = self._look._replace(said=said)

    def _asked(self, command: Command) -> str:
        return str(self._ask(command) or "")

    def _copy(self) -> str:
        """Copy the request in view with OSC 52, which also works over ssh."""
        request = self._picture.request
        if request is None:
            return "open a flow with a request first (Enter)"
        self._canvas.copy(as_curl(request))
        return f"copied, if the terminal allows it: curl {request.url}"


def _written(files: FlowFiles, flow: int, events: Sequence[Event], missing: int) -> Saved:
    is_open = not isinstance(events[-1], FlowClose)
    lines = [line_of(event) for event in events]
    return save(files.write, flow, lines, is_open=is_open, missing=missing)


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
