"""A cache of a function's results that has a bound in bytes, for arguments from the network.

`functools.lru_cache` bounds only the number of results, and its arguments stay in memory with them.
An argument that is larger than usual is therefore not remembered: it costs its own connection some
time, and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sized
from functools import lru_cache, wraps
from typing import Protocol, TypeVar

__all__ = ["SizedHashable", "remembered"]


class SizedHashable(Sized, Hashable, Protocol):
    """Such as bytes, text, and tuples of numbers."""


Argument = TypeVar("Argument", bound=SizedHashable)
Result = TypeVar("Result")


def remembered(
    count: int, max_length: int
) -> Callable[[Callable[[Argument], Result]], Callable[[Argument], Result]]:
    """Remember the latest `count` results for arguments of at most `max_length` items."""

    def decorate(function: Callable[[Argument], Result]) -> Callable[[Argument], Result]:
        known = lru_cache(count)(function)

        @wraps(function)
        def call(argument: Argument) -> Result:
            return known(argument) if len(argument) <= max_length else function(argument)

        return call

    return decorate
