"""Commands of a person to the session, by the keys of a display. They are handled at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mitml4.dataclass import dataclass

__all__ = ["Ask", "Command", "Measure", "Stop"]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the session; a second one ends it at once."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Publish `BytesMoved` for each of these flows that is open."""

    flows: tuple[int, ...]


Command: TypeAlias = Stop | Measure
Ask: TypeAlias = Callable[[Command], object]
