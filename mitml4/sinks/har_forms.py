"""The parameters of queries and forms, as an HTTP archive has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from mitml4.regex import regex

__all__ = ["form_parameters", "query_parameters"]

_MAX: Final = 10_000
"""Parameters of one query or form; the body itself shows the others."""
_BOUNDARY: Final = regex(rb"""boundary=(?:"([^"]*)"|([^\s;]+))""", re.IGNORECASE)
_PARAMETER: Final = regex(rb""";\s*([a-z*]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;]*))""", re.IGNORECASE)

Parameter = dict[str, str]


def query_parameters(url: str) -> list[Parameter]:
    """The names and values in the query of a URL, decoded."""
    try:
        return _pairs(urlsplit(url).query)
    except ValueError:  # such as an unclosed bracket
        return []


def form_parameters(content_type: str, body: bytes) -> list[Parameter]:
    """The parameters of a form. A part of `multipart/form-data` (RFC 7578) that is a file has its
    name and type, but not its content. Empty if the body is no form."""
    kind, _, options = content_type.partition(";")
    match kind.strip().lower():
        case "application/x-www-form-urlencoded":
            return _pairs(body.decode("utf-8", "replace"))
        case "multipart/form-data" if boundary := _BOUNDARY.search(options.encode()):
            return list(_parts(body, boundary[1] or boundary[2] or b""))
    return []


def _pairs(said: str) -> list[Parameter]:
    few = "&".join(said.split("&", _MAX)[:_MAX])
    return [
        {"name": name, "value": value} for name, value in parse_qsl(few, keep_blank_values=True)
    ]


def _parts(body: bytes, boundary: bytes) -> Iterator[Parameter]:
    """The parts between delimiter lines (RFC 2046 §5.1.1). The last one may be cut."""
    delimiter = rb"\r\n--%s(?=--|[ \t]*\r\n)" % re.escape(boundary)
    for part in re.split(delimiter, b"\r\n" + body, maxsplit=_MAX)[1:]:
        if part.startswith(b"--"):
            return
        head, _, value = part.partition(b"\r\n\r\n")
        fields = dict(_fields(head))
        options = {
            each[1].lower(): each[2] or each[3] or b""
            for each in _PARAMETER.finditer(fields.get(b"content-disposition", b""))
        }
        if b"name" not in options:
            continue
        found = {"name": _text(options[b"name"])}
        if b"filename" in options:
            found["fileName"] = _text(options[b"filename"])
        else:
            found["value"] = _text(value)
        if b"content-type" in fields:
            found["contentType"] = _text(fields[b"content-type"])
        yield found


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        yield name.strip().lower(), value.strip()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
