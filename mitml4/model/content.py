"""What was said, as lines for people: JSON, forms and text, what an image is, or a hex dump.

Every line is raw text from the network: the caller makes it printable, or escapes it.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import parse_qsl

from mitml4.model.protobuf import guess
from mitml4.regex import regex

__all__ = ["Shown", "shown"]

_HEX_ROW: Final = 16
_UTF_8: Final = codecs.getincrementaldecoder("utf-8")
_FORM: Final = "application/x-www-form-urlencoded"
_PROTOBUF: Final = ("protobuf", "grpc")
_JSON_TOKEN: Final = regex(r'"(?:[^"\\]|\\.)*"|[][{},:]|[^][{},:"\s]+', re.DOTALL)
_OPENING: Final = ("{", "[")
_CLOSING: Final = ("}", "]")
_MAX_INDENT: Final = 40
"""Levels; deeper ones are not indented further."""
_PNG: Final = b"\x89PNG\r\n\x1a\n"


class Shown(NamedTuple):
    """What content is, in a word or two, and its lines."""

    kind: str
    lines: list[str]


def shown(content: bytes, content_type: str | None = None, *, is_cut: bool = False) -> Shown:
    """Content for people. What it looks like counts more than the type that it was sent with.
    `is_cut`: it may end in the middle of a character."""
    given = (content_type or "").lower()
    if not content:
        return Shown("empty", [])
    if image := _image(content):
        return Shown(image, [])
    text = _text(content, is_cut=is_cut)
    if text is None:
        if any(word in given for word in _PROTOBUF) and (fields := guess(content)):
            return Shown("protobuf", fields)
        return Shown("binary", list(_hex(content)))
    if given.startswith(_FORM):
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
        return Shown("form", [f"{name} = {value}" for name, value in pairs])
    if (tree := _json(text)) is not None:
        return Shown("json", tree)
    return Shown("text", text.splitlines())


def _text(content: bytes, *, is_cut: bool) -> str | None:
    try:
        text = _UTF_8().decode(content, final=not is_cut)
    except UnicodeDecodeError:
        return None
    return None if any(char < " " and char not in "\t\n\r\f\v\x1b" for char in text) else text


def _json(text: str) -> list[str] | None:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    return list(_indented(_JSON_TOKEN.findall(text)))


def _indented(tokens: list[str]) -> Iterator[str]:
    """JSON with a line for each member. Numbers and names that occur twice stay as they are."""
    line, depth = "", 0
    for before, token in pairwise(["", *tokens]):
        if before in _OPENING and token not in _CLOSING:
            yield line
            depth += 1
            line = _indent(depth)
        if token in _CLOSING and before not in _OPENING:
            yield line
            depth -= 1
            line = _indent(depth)
        if before == ",":
            yield line
            line = _indent(depth)
        if token.startswith('"'):
            token = json.dumps(json.loads(token, strict=False), ensure_ascii=False)
        line += ": " if token == ":" else token
    yield line


def _indent(depth: int) -> str:
    return "  " * min(depth, _MAX_INDENT)


def _image(content: bytes) -> str | None:
    """The type of an image, and its size in pixels where its header says it."""
    if content.startswith(_PNG) and len(content) >= 24:
        return f"PNG image, {_number(content[16:20])} x {_number(content[20:24])}"
    if content[:6] in (b"GIF87a", b"GIF89a") and len(content) >= 10:
        return f"GIF image, {_small(content[6:8])} x {_small(content[8:10])}"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG image"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP image"
    return None


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _small(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _hex(content: bytes) -> Iterator[str]:
    for start in range(0, len(content), _HEX_ROW):
        row = content[start : start + _HEX_ROW]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{start:06x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  {text}"
