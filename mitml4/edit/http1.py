"""Heads and bodies of HTTP/1 that can be changed (RFC 9112).

What was not changed is sent as it came, byte for byte: the start line, each field, and the frames
of a body. A changed body follows the way in which the old one was delimited: a length gets the new
length, chunks become one chunk, and what the end of the connection delimits stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.edit.codings import body_bytes, content_codings, decoded
from mitml4.edit.headers import Field, Headers
from mitml4.edit.messages import Request, Response
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import MAX_PEEK
from mitml4.protocols.http.http1_heads import (
    CHUNK_LINE,
    CONNECT_LINE,
    HEAD_END,
    NO_BODY,
    REQUEST_LINE,
    STATUS_LINE,
    Fields,
    Part,
    framing,
)
from mitml4.regex import regex

__all__ = [
    "BodyReader",
    "RequestHead",
    "ResponseHead",
    "head_length",
    "read_request",
    "read_response",
    "response_bytes",
]

_BLANK_LINES: Final = regex(rb"(?:\r?\n)*")
_FIELD_LINE: Final = regex(rb"[^\n]*\n(?:[ \t][^\n]*\n)*")
_MAX_BLANKS: Final = 64


def head_length(data: bytes | bytearray) -> int:
    """The length of the head that these bytes begin with, 0 if it is not whole. Raises
    ProtocolError."""
    blank = _BLANK_LINES.match(data)
    start = blank.end() if blank else 0
    if start > _MAX_BLANKS:
        raise ProtocolError("HTTP/1: empty lines before a head")
    end = HEAD_END.search(data, start)
    if end:
        return end.end()
    if len(data) > MAX_PEEK:
        raise ProtocolError("HTTP/1: a head longer than 64 KiB")
    return 0


@dataclass(slots=True)
class _Head:
    """What a head was made of."""

    start: bytes
    """The start line as it came, with empty lines before it and its line end."""
    end: bytes
    """The empty line."""
    part: Part
    length: int
    codings: tuple[str, ...]
    """Content codings."""
    is_bodiless: bool
    content: bytes | None = None
    """The decoded body, as it was handed over."""

    @property
    def line_end(self) -> bytes:
        return b"\r\n" if self.start.endswith(b"\r\n") else b"\n"

    def hand_over(self, message: Request | Response, raw_content: bytes, limit: int) -> bool:
        """Give a message its whole body; whether its codings could be undone."""
        message.body = self.content = decoded(raw_content, self.codings, limit)
        return self.content is not None

    def body_changed(self, message: Request | Response) -> bool:
        return message.body is not None and message.body != self.content

    def framed(self, message: Request | Response, trailer: bytes) -> bytes:
        """The changed body as it is sent. Sets the header fields that tell its length and
        codings."""
        assert message.body is not None
        headers = message.headers
        body = body_bytes(message, self.content, self.codings)
        if self.part is Part.CHUNK_LINE:
            headers.discard("content-length")
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk + b"0\r\n" + (trailer or b"\r\n")
        if self.part is not Part.UNTIL_END and (body or "content-length" in headers):
            headers["Content-Length"] = str(len(body))
        return body


@dataclass(slots=True)
class RequestHead(_Head):
    method: str = ""
    """The method, target and authority as they were sent."""
    target: str = ""

    def bytes_of(self, request: Request) -> bytes:
        start = self.start
        if (request.method, request.target) != (self.method, self.target):
            line = f"{request.method} {request.target} {request.version}".encode("latin-1")
            start = line + self.line_end
        return start + _field_bytes(request.headers, self.line_end) + self.end


@dataclass(slots=True)
class ResponseHead(_Head):
    status: int = 0
    reason: str | None = None

    def bytes_of(self, response: Response) -> bytes:
        start = self.start
        if (response.status, response.reason) != (self.status, self.reason):
            start = _status_line(response) + self.line_end
        return start + _field_bytes(response.headers, self.line_end) + self.end


def _status_line(response: Response) -> bytes:
    reason = response.reason
    if reason is None:
        try:
            reason = HTTPStatus(response.status).phrase
        except ValueError:
            reason = ""
    return f"HTTP/1.1 {response.status} {reason}".encode("latin-1")


def _field_bytes(headers: Headers, line_end: bytes) -> bytes:
    return b"".join(
        each.raw or b"%b: %b%b" % (each.name, each.value, line_end) for each in headers.fields
    )


def _split(raw: bytes) -> tuple[bytes, Headers, bytes, Fields]:
    """The start line, the fields, the empty line. Raises ProtocolError."""
    blank = _BLANK_LINES.match(raw)
    start_end = raw.index(b"\n", blank.end() if blank else 0) + 1
    last = HEAD_END.search(raw, start_end - 1)
    assert last
    section_end = last.start() + 1
    section, end = raw[start_end:section_end], raw[section_end:]
    fields = Fields.of(section[:-1] if section else b"")
    lines: list[Field] = []
    for line in _FIELD_LINE.findall(section):
        name, _, value = line.partition(b":")
        folded = b" ".join(part.strip(b" \t\r") for part in value.split(b"\n"))
        lines.append(Field(name.strip(b" \t\r"), folded.strip(), line))
    return raw[:start_end], Headers(lines), end, fields


def read_request(
    raw: bytes, *, scheme: str, authority: str, stream: int
) -> tuple[RequestHead, Request]:
    """Read a whole head. `authority` is the connection's. Raises ProtocolError."""
    start, headers, end, fields = _split(raw)
    line_at = len(start) - len(start.lstrip(b"\r\n"))
    line = REQUEST_LINE.match(start, line_at) or CONNECT_LINE.match(start, line_at)
    if line is None:
        raise ProtocolError("HTTP/1: not a request line")
    is_connect = line["method"] == b"CONNECT"
    part, length = NO_BODY if is_connect else framing(fields, line["version"], request=True)
    method, target = line["method"].decode("latin-1"), line["target"].decode("latin-1")
    if "://" in target and not target.startswith("/"):
        scheme, _, rest = target.partition("://")
        authority = rest.partition("/")[0]
    else:
        authority = headers.get("host") or authority
    request = Request(
        method=method,
        scheme=scheme,
        authority=authority,
        target=target,
        version=line["version"].decode("latin-1"),
        headers=headers,
        stream=stream,
    )
    is_bodiless = part is Part.COUNTED and not length
    head = RequestHead(
        start,
        end,
        part,
        length,
        content_codings(headers),
        is_bodiless,
        method=method,
        target=target,
    )
    return head, request


def read_response(raw: bytes, method: str) -> tuple[ResponseHead, Response]:
    """Read a whole head, which answers a request of this method. Raises ProtocolError."""
    start, headers, end, fields = _split(raw)
    line = STATUS_LINE.match(start, len(start) - len(start.lstrip(b"\r\n")))
    if line is None:
        raise ProtocolError("HTTP/1: not a status line")
    status = int(line["status"])
    # RFC 9112 §6.3, 1.
    if method == "HEAD" or status in (204, 304) or status < 200:
        part, length = NO_BODY
    else:
        part, length = framing(fields, line["version"], request=False)
    reason = start[line.end() :].strip().decode("latin-1")
    response = Response(
        version=line["version"].decode("latin-1"), headers=headers, status=status, reason=reason
    )
    is_bodiless = part is Part.COUNTED and not length
    head = ResponseHead(
        start,
        end,
        part,
        length,
        content_codings(headers),
        is_bodiless,
        status=status,
        reason=reason,
    )
    return head, response


def response_bytes(response: Response, method: str, *, closes: bool) -> bytes:
    """A response of our own, whole."""
    body = response.body or b""
    headers = response.headers
    for name in ("transfer-encoding", "content-length"):
        headers.discard(name)
    has_body = response.status >= 200 and response.status not in (204, 304)
    if has_body:
        headers["Content-Length"] = str(len(body))
    if closes:
        headers["Connection"] = "close"
    head = _status_line(response) + b"\r\n" + _field_bytes(headers, b"\r\n") + b"\r\n"
    return head if method == "HEAD" or not has_body else head + body


class BodyReader:
    """Finds the end of a body, and its content, in bytes of any split."""

    __slots__ = ("_left", "_part", "is_done", "trailer")

    def __init__(self, part: Part, length: int) -> None:
        self._part = part
        self._left = length
        self.is_done = part is Part.COUNTED and not length
        self.trailer = bytearray()
        """The trailer section with its empty line, as it came."""

    def feed(self, data: bytes | bytearray) -> tuple[int, Sequence[bytes]]:
        """How many of these bytes belong to the body, as far as that is known, and the content in
        them. The others have to be given again, with more. Raises ProtocolError."""
        at, content = 0, []
        while at < len(data) and not self.is_done:
            match self._part:
                case Part.UNTIL_END:
                    content.append(bytes(data[at:]))
                    at = len(data)
                case Part.COUNTED | Part.CHUNK:
                    taken = min(self._left, len(data) - at)
                    content.append(bytes(data[at : at + taken]))
                    at += taken
                    self._left -= taken
                    if not self._left:
                        self.is_done = self._part is Part.COUNTED
                        self._part = Part.CHUNK_END
                case _:
                    line_end = data.find(b"\n", at) + 1
                    if not line_end:
                        if len(data) - at > MAX_PEEK:
                            raise ProtocolError("HTTP/1: a line longer than 64 KiB in a body")
                        break
                    self._line(bytes(data[at:line_end]))
                    at = line_end
        return at, content

    def _line(self, line: bytes) -> None:
        match self._part:
            case Part.CHUNK_END:
                if line.strip(b"\r\n"):
                    raise ProtocolError("HTTP/1: a chunk longer than its size")
                self._part = Part.CHUNK_LINE
            case Part.CHUNK_LINE:
                size = CHUNK_LINE.fullmatch(line)
                if size is None:
                    raise ProtocolError("HTTP/1: not the line of a chunk")
                self._left = int(size[1], 16)
                self._part = Part.CHUNK if self._left else Part.TRAILER
            case _:
                self.trailer += line
                if len(self.trailer) > MAX_PEEK:
                    raise ProtocolError("HTTP/1: trailers longer than 64 KiB")
                self.is_done = not line.strip(b"\r\n")

    def end(self) -> bool:
        """Nothing more comes: whether the body is complete."""
        self.is_done = self.is_done or self._part is Part.UNTIL_END
        return self.is_done
