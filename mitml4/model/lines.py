"""Events from JSON lines: the objects, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from mitml4.capture.files.source import Source
from mitml4.errors import CaptureError

__all__ = ["MAX_LINE", "read_objects"]

MAX_LINE: Final = 64 << 20
"""Bytes. The largest event is a body with the highest limit (`--payload-limit`)."""


def read_objects(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of each line, from 1, and its object. Empty lines are skipped.

    Raises CaptureError for a line that is no object, and where the file cannot be read further.
    """
    for number, line in enumerate(_lines(source), 1):
        if line.strip():
            yield number, _object(source.name, number, line)


def _object(name: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        hint = "everything before it has been read; was the file cut off, or edited?"
        raise CaptureError(f"{name}: line {number} is no JSON", hint=hint) from None
    if not isinstance(said, dict) or not isinstance(said.get("type"), str):
        raise CaptureError(
            f"{name}: line {number} is no event of mitml4",
            hint="event files are written by: mitml4 intercept … -o events.jsonl",
        )
    return said


def _lines(source: Source) -> Iterator[bytes]:
    """The lines of a file, without their ends; the last one may have no end."""
    rest = b""
    while source.more(1):
        *whole, rest = (rest + source.data[source.at :]).split(b"\n")
        source.at = len(source.data)
        yield from whole
        if len(rest) > MAX_LINE:
            raise source.error(f"a line of more than {MAX_LINE >> 20} MiB")
    source.finish("")
    if rest:
        yield rest
