"""The time that a flow may spend on replacements."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

__all__ = ["Allowance", "TooMuchError"]

_DEADLINE_S: Final = 0.25
_DEADLINE_S_PER_BYTE: Final = 1e-7
"""For one text. Other flows wait meanwhile."""
_MAX_S: Final = 2.0
_SHARE: Final = 0.2
"""What a flow may spend: so much of the time, and so much at once."""


class TooMuchError(Exception):
    """A replacement takes too long, or its result is too large; nothing is replaced."""


class Allowance:
    """The CPU time that one flow has for its replacements."""

    __slots__ = ("_at", "_clock", "_left_s")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._left_s = _MAX_S

    @property
    def left_s(self) -> float:
        """What is left now."""
        now = self._clock()
        self._left_s = min(_MAX_S, self._left_s + (now - self._at) * _SHARE)
        self._at = now
        return self._left_s

    def for_text(self, size: int) -> float:
        """How long one text of this size may take. Raises TooMuchError where nothing is left."""
        if self.left_s <= 0:
            raise TooMuchError("replacements take too long on this connection")
        return min(self._left_s, _DEADLINE_S + size * _DEADLINE_S_PER_BYTE)

    def spend(self, seconds: float) -> None:
        self._left_s -= seconds
