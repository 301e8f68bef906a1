"""Wire bytes as text for people, within a bound.

What a flow says must not decide how much memory its events take: a header field of HTTP/2 may name
64 KiB by one byte. So every text and every list in an event has a bound, and what is cut says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

__all__ = [
    "CUT",
    "MAX_ITEMS",
    "MAX_PAIRS",
    "MAX_TEXT",
    "bounded",
    "pairs",
    "shorten",
    "text",
    "whole_text",
]

MAX_TEXT: Final = 4096
"""Characters of a text; a longer one is cut there, and `CUT` put behind it."""
MAX_ITEMS: Final = 256
"""Items of a list; a longer one is cut there, and ends with an item `CUT`."""
MAX_PAIRS: Final = 32768
"""Characters of all header fields of a message; a pair of `CUT` stands for those behind."""
CUT: Final = "…"
_SHORT: Final = 256
_LONGEST_CHARACTER: Final = 4
"""Bytes of UTF-8."""
_REMEMBERED: Final = 512
"""Long texts: more than two tables of HPACK hold, as large as they may be."""


def whole_text(data: bytes) -> str:
    r"""All of it: UTF-8, and ``\xNN`` for every byte that is not."""
    return data.decode("utf-8", "backslashreplace")


def text(data: bytes) -> str:
    """The same, of a bounded length."""
    if len(data) <= _SHORT:
        return whole_text(data)
    return _long_text(data[: (MAX_TEXT + 1) * _LONGEST_CHARACTER])


@lru_cache(_REMEMBERED)
def _long_text(data: bytes) -> str:
    """Remembered, since escaping takes milliseconds, and HPACK repeats a value by one byte."""
    return shorten(whole_text(data))


def shorten(value: str) -> str:
    """A text of at most MAX_TEXT characters, and CUT if it was longer."""
    return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + CUT


def bounded(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """At most MAX_ITEMS of a list's items, and one that says CUT if there were more."""
    if len(items) <= MAX_ITEMS:
        return items
    first = items[0]
    last = (CUT,) * len(first) if isinstance(first, tuple) else CUT
    return (*items[:MAX_ITEMS], last)


def pairs(fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Header fields as text, in the order and the spelling of the wire; all within MAX_PAIRS."""
    shown: list[tuple[str, str]] = []
    left = MAX_PAIRS
    for name, value in fields:
        pair = text(name), text(value)
        left -= len(pair[0]) + len(pair[1])
        if left < 0 or len(shown) == MAX_ITEMS:
            shown.append((CUT, CUT))
            break
        shown.append(pair)
    return tuple(shown)
