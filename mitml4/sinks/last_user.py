"""Closes what a thread may still use when its task has ended."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

__all__ = ["LastUser"]


class LastUser:
    """A task ends when it is cancelled, and a thread that writes for it only when it has written.
    The file is closed by the one of them that ends last: closed earlier, its number could be that
    of another file by then."""

    def __init__(self, close: Callable[[], None]) -> None:
        """`close` is called once, by the task or by the thread."""
        self._close = close
        self._lock = Lock()
        self._is_used = False
        self._is_over = False

    def begin(self) -> bool:
        """Called by a thread before it works, of which there is one at a time. False: the task has
        ended, and nothing may be used."""
        with self._lock:
            self._is_used = not self._is_over
            return self._is_used

    def end(self) -> None:
        """Called by the thread after that."""
        with self._lock:
            self._is_used = False
            is_last = self._is_over
        if is_last:
            self._close()

    def close(self) -> None:
        """Called by the task, once, at its end."""
        with self._lock:
            self._is_over = True
            is_last = not self._is_used
        if is_last:
            self._close()
