"""Signals that end the reading of captures, and not the process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, BinaryIO, Self

from mitml4.errors import CaptureError

__all__ = ["InterruptedReadError", "Interruptible", "Interruption"]


class InterruptedReadError(CaptureError):
    """A signal has ended the reading of a capture."""


class Interruption:
    """Within it, the first of these signals ends only the reading; the next one acts as it would
    outside."""

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        self._signals = tuple(signals)
        self.by: signal.Signals | None = None
        self.may_raise = False
        """The capture is being read, which may block."""
        self.waits = False
        """A signal ends the reading only once this is false; the next one acts as it would
        outside."""
        self._usual: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for each in self._signals:
            self._usual[each] = signal.signal(each, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        while self._usual:
            signal.signal(*self._usual.popitem())

    def check(self) -> None:
        """Raises InterruptedReadError after a signal."""
        if self.by and not self.waits:
            raise InterruptedReadError(f"interrupted by {self.by.name}")

    def resume(self) -> None:
        """Let a signal end the reading, also one that has come."""
        self.waits = False

    def _interrupt(self, number: int, _frame: FrameType | None) -> None:
        self.by = signal.Signals(number)
        self.__exit__()
        if self.may_raise:
            self.check()


class Interruptible:
    """A capture whose reading a signal ends."""

    def __init__(self, stream: BinaryIO, interruption: Interruption) -> None:
        self.read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._interruption = interruption

    def read1(self, count: int) -> bytes:
        """What is there; b"" at the end. Raises InterruptedReadError."""
        self._interruption.may_raise = True
        try:
            self._interruption.check()
            return self.read(count)
        finally:
            self._interruption.may_raise = False
