"""Shows the browser on a terminal, while the file is still being read."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from time import monotonic
from types import FrameType
from typing import Final, NoReturn

from mitml4.errors import MitmError
from mitml4.events import to_line
from mitml4.keyboard import KEY_TIMEOUT_S, Keys, keyboard
from mitml4.model.flow import Flow
from mitml4.model.objects import objects_of
from mitml4.signals import ending_signals
from mitml4.sinks.flow_files import saved, write_flow
from mitml4.sinks.table.terminal import STYLES, Canvas, color_system_for
from mitml4.terminal import Color
from mitml4.view.browser import Browser
from mitml4.view.index import Index

__all__ = ["browse"]

_FRAME_S: Final = 0.1
"""Between two pictures while the file is read."""
_RESIZE_S: Final = 0.5
"""How often the size of the window is read while nothing happens."""
_BATCH: Final = 20
"""Flows that are read or compared before the keyboard is asked again."""


def browse(name: str, flows: Iterator[Flow], terminal: int, color: Color) -> MitmError | None:
    """Until a person leaves. Returns the error that ended the reading, if there was one.

    Raises OSError if the terminal has gone.
    """
    canvas = Canvas(terminal, STYLES, color_system_for(color))
    index = Index()
    with _ended_by_signals(), keyboard() as keys:
        canvas.enter()
        try:
            return _browse(Browser(name, index, canvas.copy, _save), index, flows, canvas, keys)
        finally:
            canvas.leave()
            index.close()


def _browse(
    browser: Browser, index: Index, flows: Iterator[Flow], canvas: Canvas, keys: int | None
) -> MitmError | None:
    reading, presses = _Reading(flows, index), Keys()
    while keys is not None and not browser.is_over:
        browser.is_reading = reading.is_going
        browser.failure = reading.failure.message if reading.failure else ""
        canvas.draw(browser.picture(*canvas.size), canvas.size)
        _work(reading, index, keys)
        is_busy = reading.is_going or index.examine(1)
        timeout_s = 0 if is_busy else _RESIZE_S
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

    def go_on(self) -> None:
        """Read some more flows."""
        before = self._index.total
        try:
            for flow in islice(self._flows, _BATCH):
                self._index.add(flow)
        except MitmError as error:
            self.failure = error
        self.is_going = not self.failure and self._index.total - before == _BATCH


def _work(reading: _Reading, index: Index, keys: int) -> None:
    """Read and compare, until there is a key or it is time for the next picture."""
    until = monotonic() + _FRAME_S
    is_busy = True
    while is_busy and monotonic() < until and not _has_input(keys, 0):
        if reading.is_going:
            reading.go_on()
        is_busy = index.examine(_BATCH) or reading.is_going


def _save(flow: Flow) -> str:
    lines = [f"{to_line(said)}\n".encode("utf-8", "backslashreplace") for said in objects_of(flow)]
    return saved(write_flow, flow.number, lines, is_open=flow.is_open)


def _has_input(keys: int, timeout_s: float) -> bool:
    return bool(select.select([keys], [], [], timeout_s)[0])
