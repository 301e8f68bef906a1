"""A filter that is typed on the last lines of a screen."""

from __future__ import annotations

from typing import NamedTuple

from rich.cells import cell_len

from mitml4.filter.expression import Filter
from mitml4.filter.parser import FilterError, parse_filter
from mitml4.printable import printable
from mitml4.screen.keyboard import ERASE, ERASE_ALL, ERASE_WORD, RETURN

__all__ = ["Prompt", "prompt_lines", "type_key"]


class Prompt(NamedTuple):
    """What has been typed (None: it is finished), the filter that applies, and what is wrong."""

    typed: str | None
    filter: Filter | None
    said: str = ""
    fault_at: int | None = None
    """The place of what is wrong."""


def type_key(typed: str, key: bytes, applied: Filter | None) -> Prompt:
    """The next key: Enter applies the filter, or none if nothing was typed; Esc drops it."""
    if key in ERASE:
        return Prompt(typed[:-1], applied)
    if key in ERASE_WORD:
        return Prompt(typed[: typed.rstrip().rfind(" ") + 1], applied)
    if key in ERASE_ALL:
        return Prompt("", applied)
    if key == b"\x1b" or (key in RETURN and not typed.strip()):
        return Prompt(None, None)
    if key in RETURN:
        try:
            return Prompt(None, parse_filter(typed))
        except FilterError as error:
            return Prompt(typed, applied, error.message, error.at)
    text = key.decode("utf-8", "ignore")
    return Prompt(typed + text if text.isprintable() else typed, applied)


def prompt_lines(typed: str, said: str, fault_at: int | None, width: int) -> list[str]:
    """What has been typed; below it a mark at what is wrong, and what that is."""
    first = f"/{printable(typed)}▏"
    if not said:
        return [first]
    column, said = 1 + cell_len(printable(typed[:fault_at])), printable(said)
    if column + 2 + cell_len(said) <= width or cell_len(said) >= column:
        return [first, f"{' ' * column}^ {said}"]
    return [first, f"{' ' * (column - 1 - cell_len(said))}{said} ^"]
