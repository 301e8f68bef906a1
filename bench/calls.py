"""Counts the calls of Python and C functions, by the part of the program that they are in."""

from __future__ import annotations

import collections
import cProfile
import pstats
import re
from typing import Any, Final

__all__ = ["calls_by_part", "part_of", "show_calls"]

_OF_C_FUNCTIONS: Final = "~"
"""What a profile has in place of their file."""


def part_of(path: str) -> str:
    """The part of the program that a file belongs to: a folder of mitml4, or a library."""
    if found := re.search(r"(?:^|/)(mitml4(?:/\w+){0,2})/\w+\.py$", path):
        return found[1]
    found = re.search(r"/site-packages/(\w+)|attrs generated methods (\w+)", path)
    return found[1] or found[2] if found else "standard library"


def calls_by_part(profile: cProfile.Profile) -> collections.Counter[str]:
    """The calls of the functions in each part; a C function is in the part of its caller. A
    coroutine that goes on counts as called again."""
    calls: collections.Counter[str] = collections.Counter()
    stats: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (path, _, _), (_, count, _, _, callers) in stats.items():
        if path != _OF_C_FUNCTIONS:
            calls[part_of(path)] += count
            continue
        for (caller, _, _), (_, times, _, _) in callers.items():
            calls[part_of(caller)] += times
    return calls


def show_calls(profile: cProfile.Profile, count: int) -> None:
    """Print the calls for each of `count` connections or requests, most first."""
    calls = calls_by_part(profile)
    print(f"{calls.total() / count:8.1f}  all")
    for part, number in calls.most_common():
        if number >= count:
            print(f"{number / count:8.1f}  {part}")
