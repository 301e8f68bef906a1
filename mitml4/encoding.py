"""Events as lines of JSON.

For each class, the function that writes its fields is generated when the first instance is written:
it is one f-string, with the names of the fields in its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite
from typing import Any, Final, TypeAlias

from mitml4.address import Address
from mitml4.events import VERSION, Event, LayerEvent
from mitml4.payload.text import PayloadText
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.wire_text import MAX_ITEMS, MAX_TEXT, bounded, shorten, text
from mitml4.regex import regex

__all__ = ["encode", "numbering", "renumbered", "to_json", "to_line", "with_name"]


def encode(event: Event, *, headers: bool = True) -> str:
    """One compact JSON object, without the newline.

    `headers`: whether to include the headers of messages.
    """
    content: Any = event.content if type(event) is LayerEvent else event
    lines = _LINES if headers else _LINES_WITHOUT_HEADERS
    line = lines[type(content)](event, content)
    return line if line.isascii() else _harmless(line)


def to_line(value: object) -> str:
    """Any value as one compact line of JSON."""
    return _harmless(_to_json(value))


def renumbered(lines: bytes, by: int) -> bytes:
    """Lines of events, with numbers of flows that are greater by this."""
    if not by:
        return lines
    return _FLOW.sub(lambda found: b"%s%d" % (found[1], int(found[2]) + by), lines)


def numbering(before: int, after: int) -> tuple[bytes, bytes]:
    """What to replace once in a line of an event of a flow, and by what, to give it another number.
    Texts do not contain it, since their quotes have a backslash."""
    return b"%b%d" % (_NUMBER, before), b"%b%d" % (_NUMBER, after)


def with_name(line: bytes, name: str) -> bytes:
    """The line of a flow that opens without a name, with this one."""
    return line.replace(_name(None), _name(name), 1)


@lru_cache(4096)
def _name(name: str | None) -> bytes:
    return f',"name":{to_line(name)},'.encode()


_NUMBER: Final = b',"v":%d,"flow":' % VERSION
_FLOW: Final = regex(
    rb'^(\{"type":"[^"]+","time":"[^"]+","v":%d,"flow":)([0-9]+)' % VERSION, re.MULTILINE
)


def to_json(value: object) -> object:
    """Convert a field's value that the json module does not support, by one level."""
    match value:
        case bytes():
            return text(value)
        case datetime():
            return _time(value)
        case Enum():
            return value.value
        case Mapping():
            return dict(value)
    if is_dataclass(value):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _time(value: datetime) -> str:
    global _second
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    begin, end, start = _second
    if not begin <= value <= end:
        begin, end = value.replace(microsecond=0), value.replace(microsecond=999_999)
        start = begin.isoformat()[:-6]  # without +00:00
        _second = begin, end, start
    return f"{start}.{value.microsecond:06}Z"


_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_second: tuple[datetime, datetime, str] = (_NEVER, _NEVER.replace(year=1), "")
"""The second of the last time that was written, and its text: events come many a second."""


def _harmless(line: str) -> str:
    return _OBEYED.sub(_escape, line)


# Characters that JSON need not escape, but that a terminal interprets, or that a reader takes for
# the end of a line: C1, bidirectional formatting, line and paragraph separators.
_OBEYED: Final = regex(r"[\x80-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


_to_json: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=to_json
).encode

_Write: TypeAlias = Callable[[Any], str]
_Line: TypeAlias = Callable[[Event, Any], str]


class _Writers(dict[type, _Write]):
    """What writes the values of a class."""

    def __missing__(self, cls: type) -> _Write:
        write: _Write = _to_json
        if is_dataclass(cls):
            write = _generated("value", "value", cls, "", 0)
            if cls is CertificateDetails:  # the same is in the event of each connection to a site
                write = lru_cache(_REMEMBERED)(write)
        elif issubclass(cls, Enum):
            write = _write_enum
        self[cls] = write
        return write


class _Lines(dict[type, _Line]):
    """What makes the line of an event with a content of a class, or of an event of a class."""

    def __init__(self, *, headers: bool) -> None:
        super().__init__()
        self._unknown = frozenset() if headers else frozenset({"headers"})

    def __missing__(self, cls: type[Any]) -> _Line:
        line: _Line
        head = f'"type":"{cls.type}","time":"{{_time(event.time)}}","v":{VERSION},'
        if issubclass(cls, Event):
            line = _generated("event, _", "event", cls, head, 1, self._unknown)  # 0 is the time
        else:
            head += '"flow":{event.flow},"depth":{event.depth},'
            line = _generated("event, content", "content", cls, head, 0, self._unknown)
        self[cls] = line
        return line


def _generated(
    parameters: str, value: str, cls: Any, head: str, start: int, unknown: Set[str] = frozenset()
) -> Any:
    """A function that returns a JSON object: `head`, and the fields from the one at `start` on.
    `unknown`: names of fields that are null, whatever they are."""
    assigned, members = [], []
    for number, item in enumerate(fields(cls)[start:]):
        if item.name in unknown:
            members.append(f'"{item.name}":null')
            continue
        if item.type == "int":  # it needs no test
            members.append(f'"{item.name}":{{{value}.{item.name}}}')
            continue
        expression = _TEXTS.get(str(item.type), _TEXT).replace("_0", f"_{number}")
        assigned.append(f" _{number} = {value}.{item.name}\n")
        members.append(f'"{item.name}":{{{expression}}}')
    known = {
        "_quote": encode_basestring,
        "_write": _WRITE,
        "_time": _time,
        "_float": _write_float,
        "_address": _write_address,
    }
    body = f"{''.join(assigned)} return f'{{{{{head}{','.join(members)}}}}}'"
    exec(f"def written({parameters}):\n{body}", known)
    return known["written"]


_TEXT: Final = (
    f'"null" if _0 is None else _quote(_0) if type(_0) is str and len(_0) <= {MAX_TEXT}'
    " else _0 if type(_0) is int else _write[type(_0)](_0)"
)
"""The text of a field. Most are unknown, texts or numbers; no function is called to tell."""
_TEXTS: Final = {
    "float": "_float(_0)",
    "float | None": '"null" if _0 is None else _float(_0)',
    "Address": "_address(_0)",
}
"""The text of a field of this type."""


def _write_enum(value: Enum) -> str:
    return _WRITE[type(value.value)](value.value)


def _write_float(value: float) -> str:
    return f"{round(value, 6)}" if isfinite(value) else _to_json(value)


def _write_address(value: Address) -> str:
    return f'{{"ip":{encode_basestring(value.ip)},"port":{value.port}}}'


def _write_tuple(values: tuple[Any, ...]) -> str:
    if not values:
        return "[]"
    if len(values) > MAX_ITEMS:
        values = bounded(values)
    written = [
        encode_basestring(value)
        if type(value) is str and len(value) <= MAX_TEXT
        else _WRITE[type(value)](value)
        for value in values
    ]
    return f"[{','.join(written)}]"


_REMEMBERED: Final = 64
_LINES: Final = _Lines(headers=True)
_LINES_WITHOUT_HEADERS: Final = _Lines(headers=False)
_USUAL: Final[dict[type, _Write]] = {
    str: lambda value: encode_basestring(shorten(value)),
    PayloadText: encode_basestring,
    int: int.__repr__,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    bytes: lambda value: encode_basestring(text(value)),
    datetime: lambda value: f'"{_time(value)}"',
    Address: _write_address,
    tuple: _write_tuple,
    float: _write_float,
}
_WRITE: Final = _Writers(_USUAL)
