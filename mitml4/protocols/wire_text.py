"""Wire bytes as text for people, within a bound.

The traffic must not decide how much memory its events take: a header field of HTTP/2 can name 64
KiB in one byte. So every text and every list in an event has a bound, and shows where it was cut.
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
"""Characters of a text; a longer one is cut there, and `CUT` follows."""
MAX_ITEMS: Final = 256
"""Items of a list; a longer one is cut there, and an item `CUT` follows."""
MAX_PAIRS: Final = 32768
"""Characters of all header fields of a message; a pair of `CUT` stands for the rest."""
CUT: Final = "…"
_SHORT: Final = 256
_LONGEST_CHARACTER: Final = 4
"""Bytes of a character in UTF-8, at most."""
_REMEMBERED: Final = 512
"""Long texts that are cached: more than two HPACK tables of the largest size hold."""


def whole_text(data: bytes) -> str:
    r"""All of the bytes as UTF-8, with ``\xNN`` for every byte that is not."""
    return data.decode("utf-8", "backslashreplace")


def text(data: bytes) -> str:
    """The same, at most MAX_TEXT characters and CUT."""
    if len(data) <= _SHORT:
        return data.decode("utf-8", "backslashreplace")
    return _long_text(data[: (MAX_TEXT + 1) * _LONGEST_CHARACTER])


@lru_cache(_REMEMBERED)
def _long_text(data: bytes) -> str:
    """Cached: escaping takes milliseconds, and HPACK repeats a value in one byte."""
    return shorten(whole_text(data))


def shorten(value: str) -> str:
    """The text, cut at MAX_TEXT characters with CUT after them."""
    return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + CUT


def bounded(items: tuple[Any, ...]) -> tuple[Any, ...]:
    """The first MAX_ITEMS items, and CUT as the last one if there were more."""
    if len(items) <= MAX_ITEMS:
        return items
    first = items[0]
    last = (CUT,) * len(first) if isinstance(first, tuple) else CUT
    return (*items[:MAX_ITEMS], last)


def pairs(fields: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Header fields as text, in the order and spelling of the wire, within MAX_PAIRS."""
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
