"""Usual heads of HTTP/1, which are read once and remembered: most heads repeat on a
connection, and on others to the same site.

What is in a head depends on its bytes alone. A head that is remembered is therefore found by its
bytes, without being read. One that is not usual (long, malformed, CONNECT or an unknown method, an
`Upgrade`, a target that names a host or has blanks, an empty line in another form) is None here,
and read in http1_conversation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.http.http1_heads import Fields, Part, framing
from mitml4.protocols.http.http1_opening import KNOWN_METHODS

__all__ = ["UsualRequest", "UsualResponse", "usual_request", "usual_response"]

_END: Final = b"\r\n\r\n"
_LONGEST: Final = 1024
_REMEMBERED: Final = 128
"""Heads, of requests and of responses each, and sections of requests: half a megabyte at most."""
_METHODS: Final = {method: method.decode() for method in KNOWN_METHODS}
_VERSIONS: Final = {version: version.decode() for version in (b"HTTP/1.0", b"HTTP/1.1")}
_STATUSES: Final = {b"%d" % status: status for status in range(200, 1000)}
"""Those of final responses (RFC 9110 §15)."""
_CONTROLS: Final = bytes([*range(0x20), 0x7F])


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
    line, section = _parts(head)
    words = line.removesuffix(b"\r").split(b" ")
    if len(words) != 3:
        return None
    method, target, version = words
    if method not in _METHODS or version not in _VERSIONS or not target.startswith(b"/"):
        return None
    try:
        fields = _fields(section)
        body = framing(fields, version, request=True)
    except ProtocolError:
        return None
    if b"upgrade" in fields.named or len(target.translate(None, _CONTROLS)) != len(target):
        return None
    return UsualRequest(
        method, _METHODS[method], target, _VERSIONS[version], section,
        fields, fields.first(b"host"), fields.content_type, body, len(head),
    )  # fmt: skip


_fields: Final = lru_cache(_REMEMBERED)(Fields.of)
"""On a connection, most requests have the same fields, though they are for different paths."""


@lru_cache(_REMEMBERED)
def _response(head: bytes) -> UsualResponse | None:
    line, section = _parts(head)
    version, _, rest = line.partition(b" ")
    status = _STATUSES.get(rest[:3])
    if version not in _VERSIONS or status is None or rest[3:4] not in (b" ", b"\r"):
        return None
    try:
        fields = Fields.of(section)
        body = framing(fields, version, request=False)
    except ProtocolError:
        return None
    return UsualResponse(
        status, _VERSIONS[version], fields, fields.content_type, body,
        fields.ends_connection(version), len(head),
    )  # fmt: skip


def _parts(head: bytes) -> tuple[bytes, bytes]:
    """The first line, without its line feed, and the header section; nothing if an empty line
    stands before the end."""
    if b"\n\n" in head or head.find(b"\n\r\n") != len(head) - 3:
        return b"", b""
    line, _, section = head[:-3].partition(b"\n")
    return line, section
