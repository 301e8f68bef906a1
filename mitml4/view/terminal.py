"""Shows the browser on a terminal, while the file is still being read."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from queue import Queue
from threading import Thread
from time import monotonic
from types import FrameType
from typing import Final, NoReturn

from mitml4.encoding import to_line
from mitml4.errors import MitmError
from mitml4.model.flow import Flow
from mitml4.model.objects import objects_of
from mitml4.screen.canvas import STYLES, Canvas, color_system_for
from mitml4.screen.keyboard import KEY_TIMEOUT_S, Keys, keyboard
from mitml4.screen.terminal import Color
from mitml4.signals import ending_signals
from mitml4.sinks.flow_files import save, write_flow
from mitml4.view.browser import Browser
from mitml4.view.index import Index

__all__ = ["browse"]

_FRAME_S: Final = 0.1
"""Between two pictures while the file is read."""
_RESIZE_S: Final = 0.5
"""How often the size of the window is read while nothing happens."""
_BATCH: Final = 20
"""Flows that are read or compared before the keyboard is asked again."""
_MAX_READY: Final = 1000
"""Flows of a pipe that wait to be shown."""


def browse(
    name: str,
    flows: Iterator[Flow],
    terminal: int,
    color: Color,
    *,
    keys_from: int | None = None,
    is_slow: bool = False,
) -> MitmError | None:
    """Until a person leaves. Returns the error that ended the reading, if there was one.

    Keys come from standard input, or from the terminal `keys_from`. `is_slow`: the flows may be
    long in coming. Raises OSError if the terminal has gone.
    """
    canvas = Canvas(terminal, STYLES, color_system_for(color))
    index = Index()
    reading = _SlowReading(flows, index) if is_slow else _Reading(flows, index)
    with _ended_by_signals(), keyboard(keys_from) as keys:
        canvas.enter()
        try:
            return _browse(Browser(name, index, canvas.copy, _save), index, reading, canvas, keys)
        finally:
            canvas.leave()
            index.close()


def _browse(
    browser: Browser, index: Index, reading: _Reading, canvas: Canvas, keys: int | None
) -> MitmError | None:
    presses = Keys()
    while keys is not None and not browser.is_over:
        browser.is_reading = reading.is_going
        browser.failure = reading.failure.message if reading.failure else ""
        canvas.draw(browser.picture(*canvas.size), canvas.size)
        _work(reading, index, keys)
        is_busy = reading.can_go_on or index.examine(1)
        timeout_s = 0 if is_busy else _FRAME_S if reading.is_going else _RESIZE_S
        if _has_input(keys, KEY_TIMEOUT_S if presses.is_partial else timeout_s):
            data = os.read(keys, 1024)
            browser.is_over |= not data
        else:
            data = b""
        for key in presses.feed(data):
            browser.press(key)
    return reading.failure


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let the terminal be restored first. Ctrl-C already does, since it raises an exception."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    usual = {each: signal.signal(each, end) for each in set(ending_signals()) - {signal.SIGINT}}
    try:
        yield
    finally:
        for each, handler in usual.items():
            signal.signal(each, handler)


class _Reading:
    """The file, as far as it has been read."""

    def __init__(self, flows: Iterator[Flow], index: Index) -> None:
        self.is_going = True
        self.failure: MitmError | None = None
        self._flows = flows
        self._index = index

    @property
    def can_go_on(self) -> bool:
        """Whether there is more to read now."""
        return self.is_going

    def go_on(self) -> None:
        """Read some more flows."""
        before = self._index.total
        try:
            for flow in islice(self._flows, _BATCH):
                self._index.add(flow)
        except MitmError as error:
            self.failure = error
        self.is_going = not self.failure and self._index.total - before == _BATCH


class _SlowReading(_Reading):
    """The same for a pipe, which another thread reads: keys do not wait for it."""

    def __init__(self, flows: Iterator[Flow], index: Index) -> None:
        super().__init__(flows, index)
        self._ready = Queue[Flow | MitmError | None](_MAX_READY)
        Thread(target=self._fetch, daemon=True).start()

    def _fetch(self) -> None:
        end: MitmError | None = None
        try:
            for flow in self._flows:
                self._ready.put(flow)
        except MitmError as error:
            end = error
        self._ready.put(end)

    @property
    def can_go_on(self) -> bool:
        return self.is_going and not self._ready.empty()

    def go_on(self) -> None:
        for _ in range(_BATCH):
            if not self.can_go_on:
                break
            ready = self._ready.get()
            if isinstance(ready, Flow):
                self._index.add(ready)
            else:
                self.failure, self.is_going = ready, False


def _work(reading: _Reading, index: Index, keys: int) -> None:
    """Read and compare, until there is a key or it is time for the next picture."""
    until = monotonic() + _FRAME_S
    is_busy = True
    while is_busy and monotonic() < until and not _has_input(keys, 0):
        if reading.can_go_on:
            reading.go_on()
        is_busy = index.examine(_BATCH) or reading.can_go_on


def _save(flow: Flow) -> str:
    lines = [f"{to_line(said)}\n".encode("utf-8", "backslashreplace") for said in objects_of(flow)]
    return save(write_flow, flow.number, lines, is_open=flow.is_open).said


def _has_input(keys: int, timeout_s: float) -> bool:
    return bool(select.select([keys], [], [], timeout_s)[0])
