"""Commands of a person to the session, by the keys of a display. They are handled at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mitml4.dataclass import dataclass

__all__ = ["Ask", "Command", "Measure", "PassThrough", "Refuse", "Reset", "Stop"]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the session; a second one ends it at once."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Publish `BytesMoved` for each of these flows that is open."""

    flows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reset:
    """End this flow: both sides get a reset."""

    flow: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Block new connections to a host, or allow them again."""

    host: str


@dataclass(frozen=True, slots=True)
class PassThrough:
    """Pass TLS of new connections to a host through, or intercept it again."""

    host: str


Command: TypeAlias = Stop | Measure | Reset | Refuse | PassThrough
Ask: TypeAlias = Callable[[Command], object]
