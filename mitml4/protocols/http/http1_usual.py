"""Usual heads of HTTP/1, which are read once and remembered: most heads repeat on a
connection, and on others to the same site.

What is in a head depends on its bytes alone. A head that is remembered is therefore found by its
bytes, without being read. One that is not usual (long, malformed, CONNECT, an `Upgrade`, a target
that names a host, a final empty line in another form) is None here, and read in http1_conversation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.http.http1_heads import (
    HEAD_END,
    REQUEST_LINE,
    STATUS_LINE,
    Fields,
    Part,
    framing,
)
from mitml4.protocols.wire_text import text

__all__ = ["UsualRequest", "UsualResponse", "usual_request", "usual_response"]

_END: Final = b"\r\n\r\n"
_LONGEST: Final = 1024
_REMEMBERED: Final = 128
"""Heads, of requests and of responses each: half a megabyte at most."""
_CONTINUES: Final = 200
"""A final response has this status, or a higher one (RFC 9110 §15)."""


@dataclass(frozen=True, slots=True)
class UsualRequest:
    """The head of a request for a path, without an `Upgrade`."""

    method: bytes
    method_text: str
    target: bytes
    version: str
    section: bytes
    """The header section."""
    fields: Fields
    host: bytes | None
    content_type: str | None
    body: tuple[Part, int]
    size: int
    """Bytes of the whole head."""


@dataclass(frozen=True, slots=True)
class UsualResponse:
    """The head of a final response."""

    status: int
    version: str
    fields: Fields
    content_type: str | None
    body: tuple[Part, int]
    """What follows unless the status or the request's method rules it out."""
    is_last: bool
    """Whether it ends its connection."""
    size: int


def usual_request(data: bytes, at: int) -> UsualRequest | None:
    """The whole head at `at`, if it is a usual one."""
    end = data.find(_END, at, at + _LONGEST)
    return None if end < 0 else _request(data[at : end + 4])


def usual_response(data: bytes, at: int) -> UsualResponse | None:
    """The same for a response."""
    end = data.find(_END, at, at + _LONGEST)
    return None if end < 0 else _response(data[at : end + 4])


@lru_cache(_REMEMBERED)
def _request(head: bytes) -> UsualRequest | None:
    line = REQUEST_LINE.match(head)
    if line is None or not line["target"].startswith(b"/"):
        return None
    section_end = _section_end(head, line.end() - 1)
    if section_end is None:
        return None
    section = head[line.end() : section_end]
    try:
        fields = Fields.of(section)
        body = framing(fields, line["version"], request=True)
    except ProtocolError:
        return None
    if b"upgrade" in fields.named:
        return None
    return UsualRequest(
        line["method"], text(line["method"]), line["target"], text(line["version"]), section,
        fields, fields.first(b"host"), fields.content_type, body, len(head),
    )  # fmt: skip


@lru_cache(_REMEMBERED)
def _response(head: bytes) -> UsualResponse | None:
    line = STATUS_LINE.match(head)
    section_end = _section_end(head, 0)
    if line is None or section_end is None or (status := int(line["status"])) < _CONTINUES:
        return None
    try:
        fields = Fields.of(head[head.index(b"\n") + 1 : section_end])
        body = framing(fields, line["version"], request=False)
    except ProtocolError:
        return None
    return UsualResponse(
        status, text(line["version"]), fields, fields.content_type, body,
        fields.ends_connection(line["version"]), len(head),
    )  # fmt: skip


def _section_end(head: bytes, start: int) -> int | None:
    """Where the header section ends, if the head ends behind it and not before."""
    end = HEAD_END.search(head, start)
    return end.start() if end and end.end() == len(head) else None
