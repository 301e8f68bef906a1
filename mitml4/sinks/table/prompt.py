"""A filter that is typed on the last line of a screen."""

from __future__ import annotations

from typing import NamedTuple

from mitml4.errors import UsageError
from mitml4.filter.expression import Filter
from mitml4.filter.parser import parse_filter
from mitml4.keyboard import ERASE, RETURN

__all__ = ["Prompt", "type_key"]


class Prompt(NamedTuple):
    """What has been typed (None: it is finished), the filter that applies, and what is wrong."""

    typed: str | None
    filter: Filter | None
    said: str = ""


def type_key(typed: str, key: bytes, applied: Filter | None) -> Prompt:
    """The next key: Enter applies the filter, or none if nothing was typed; Esc drops it."""
    if key in ERASE:
        return Prompt(typed[:-1], applied)
    if key == b"\x1b" or (key in RETURN and not typed.strip()):
        return Prompt(None, None)
    if key in RETURN:
        try:
            return Prompt(None, parse_filter(typed))
        except UsageError as error:
            return Prompt(typed, applied, error.message)
    text = key.decode("utf-8", "ignore")
    return Prompt(typed + text if text.isprintable() else typed, applied)
