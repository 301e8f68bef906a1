"""The heads of HTTP/1 messages (RFC 9112): their lines, their fields, and how a body is delimited.

h11 cannot read them: it is an endpoint, and refuses what an endpoint must (a request without
`Host`, a space before a colon, a 101 that answers nothing it sent itself). A man in the middle
reads what the two ends accept. It gives up, by ProtocolError, only where readers disagree about the
end of a message (request smuggling). Everything else is tested against h11.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.enums import plain_members
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import MAX_PEEK, Target, Verdict
from mitml4.protocols.parts.lines import prefix_pattern
from mitml4.protocols.wire_text import text, whole_text
from mitml4.regex import regex

__all__ = [
    "BARE_CR",
    "CHUNK_LINE",
    "CHUNK_LINE_BEGUN",
    "CONNECT_BEGUN",
    "CONNECT_LINE",
    "HEAD_END",
    "NO_BODY",
    "REQUEST_BEGUN",
    "REQUEST_LINE",
    "STATUS_BEGUN",
    "STATUS_LINE",
    "TCHAR",
    "Fields",
    "Part",
    "connect_target",
    "framing",
    "line_verdict",
    "not_whole",
    "unfolded",
]

BARE_CR: Final = "HTTP/1: a line that begins with a bare CR"
MAX_LENGTH_DIGITS: Final = 18
"""Digits of a Content-Length after leading zeros: up to an exabyte."""

# RFC 9110 §5.6.2 (token) and §9.1. Some clients send targets in no valid form, or
# with spaces. The version after them shows that it is a request line.
TCHAR: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
# nginx accepts a method of any length that its buffer of 8 KiB holds.
_METHOD: Final = rb"(?!CONNECT )" + TCHAR + rb"{1,8192}"
_IN_TARGET: Final = rb"[^\x00-\x1f\x7f]"
# RFC 9112 §3.2.3: authority-form is host and port alone.
_AUTHORITY: Final = regex(
    rb"(?:(?P<host>\[[0-9A-Za-z:.%\-]+\]|[^\x00-\x20\x7f/?#@\[\]{]+):(?P<port>[0-9]{1,5})"
    rb"|(?P<name>[^\x00-\x20\x7f/?#@:\[\]{]+))(?![^ ])"
)
_DEFAULT_PORT: Final = 443
"""The port of a CONNECT that names none, as in tinyproxy and Privoxy."""
# nginx accepts up to three digits after any zeros, and blanks after them
# (ngx_http_parse_request_line).
_VERSION: Final = rb"(?P<version>HTTP/1\.0{0,64}[0-9]{1,3}) *"
_BLANK_LINES: Final = regex(rb"(?:\r?\n){0,4}")

_TARGET: Final = rb" (?P<target>" + _IN_TARGET + rb"+?) "

REQUEST_LINE: Final = regex(rb"(?P<method>" + _METHOD + rb")" + _TARGET + _VERSION + rb"\r?\n")
REQUEST_BEGUN: Final = regex(
    prefix_pattern(_METHOD, rb" ", _IN_TARGET + rb"+", rb"\r").pattern + rb"|\r"
)
CONNECT_LINE: Final = regex(rb"(?P<method>CONNECT)(?! \{)" + _TARGET + _VERSION + rb"\r?\n")
"""With a brace it is a CONNECT of NATS."""
CONNECT_BEGUN: Final = regex(
    prefix_pattern(
        *(b"C", b"O", b"N", b"N", b"E", b"C", b"T"),
        *(rb" (?!\{)", _IN_TARGET + rb"+", rb"\r"),
    ).pattern
    + rb"|\r"
)
STATUS_LINE: Final = regex(
    rb"(?P<version>HTTP/1\.[0-9]{1,3}|ICY) {1,16}(?P<status>[1-9][0-9]{2})(?=[ \r\n])"
)
"""`ICY 200 OK` is sent by SHOUTcast, and is HTTP/1.0 otherwise. curl and nginx accept several
blanks before the status."""
STATUS_BEGUN: Final = regex(
    rb"(?:I|IC|ICY|"
    + prefix_pattern(*(b"H", b"T", b"T", b"P", b"/", b"1", rb"\.", b"[0-9]{1,3}")).pattern
    + rb"|(?:HTTP/1\.[0-9]{1,3}|ICY) {1,16}(?:[1-9][0-9]{0,2})?)|\r"
)
HEAD_END: Final = regex(rb"\n\r?\n")
_FOLD: Final = regex(rb"\r?\n[ \t]+")
_TCHARS: Final = b"".join(re.findall(TCHAR, bytes(range(256))))
_FRAMING: Final = regex(rb"content-length|transfer-encoding")
_LENGTH: Final = regex(rb"0*[0-9]{1,%d}" % MAX_LENGTH_DIGITS)
# RFC 9112 §7.1; 15 hexadecimal digits are an exabyte; leading zeros are ignored.
CHUNK_LINE: Final = regex(rb"0*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
CHUNK_LINE_BEGUN: Final = regex(rb"0*[0-9A-Fa-f]{0,15}[ \t]*(?:;[^\n]*|\r)?")


def line_verdict(data: bytes, whole: re.Pattern[bytes], beginning: re.Pattern[bytes]) -> Verdict:
    """The verdict on the first line, after up to four empty ones (RFC 9112 §2.2)."""
    blank = _BLANK_LINES.match(data)
    start = blank.end() if blank else 0
    if whole.match(data, start):
        return Verdict.MATCH
    return Verdict.NEED_MORE if beginning.fullmatch(data, start) else Verdict.REJECT


def connect_target(line: re.Match[bytes]) -> Target | None:
    """The target in a matched CONNECT_LINE; None if it cannot be read."""
    authority = _AUTHORITY.match(line["target"])
    if authority is None:
        return None
    if name := authority["name"]:
        return Target(whole_text(name), _DEFAULT_PORT)
    return Target(whole_text(authority["host"].strip(b"[]")), int(authority["port"]))


def unfolded(section: bytes) -> bytes:
    """A header section with every folded field in one line (RFC 9112 §5.2)."""
    if b"\n " in section or b"\n\t" in section:
        return _FOLD.sub(b" ", section)
    return section


@dataclass(frozen=True, slots=True)
class Fields:
    """The header section of a message: the fields in order, and by lower-case name."""

    lines: Sequence[tuple[bytes, bytes]]
    named: dict[bytes, list[bytes]]

    @classmethod
    def of(cls, section: bytes) -> Fields:
        """Read a header section, from after the start line to before the empty line.

        Raises ProtocolError where some readers would see the end of the section, or a field that
        delimits the message, and others would not (RFC 9112 §2.2, §5.1, §11.2).
        """
        if section.startswith((b" ", b"\t")):
            raise ProtocolError("HTTP/1: white space before the first header field")
        if section.startswith(b"\r") or b"\n\r" in section:
            raise ProtocolError(BARE_CR)
        lines: list[tuple[bytes, bytes]] = []
        named: dict[bytes, list[bytes]] = {}
        for line in unfolded(section).split(b"\n"):
            raw, _, value = line.partition(b":")
            name, key = _usual_name(raw) if len(raw) <= _USUAL_NAME else _name(raw)
            if name:
                value = value.strip(b" \t\r")
                lines.append((name, value))
                if key in named:
                    named[key].append(value)
                else:
                    named[key] = [value]
        return cls(lines, named)

    def first(self, name: bytes) -> bytes | None:
        values = self.named.get(name)
        return values[0] if values else None

    def items(self, name: bytes) -> list[bytes]:
        """The members of a field that is a list, in lower case (RFC 9110 §5.6.1)."""
        values = self.named.get(name)
        return (
            [item.strip(b" \t").lower() for item in b",".join(values).split(b",")] if values else []
        )

    def ends_connection(self, version: bytes) -> bool:
        """Whether a response with these ends its connection (RFC 9112 §9.3, §9.6)."""
        options = self.items(b"connection")
        if version in (b"HTTP/1.0", b"ICY"):
            return b"keep-alive" not in options
        return b"close" in options

    @property
    def content_type(self) -> str | None:
        value = self.first(b"content-type")
        return None if value is None else text(value)


def _name(raw: bytes) -> tuple[bytes, bytes]:
    """The name of a field without the blanks around it, and the same in lower case."""
    name = raw.strip(b" \t\r")
    key = name.lower()
    if (raw != name or name.translate(None, _TCHARS)) and _FRAMING.search(key):
        raise ProtocolError("HTTP/1: a malformed Content-Length or Transfer-Encoding field")
    return name, key


_usual_name: Final = lru_cache(1024)(_name)
_USUAL_NAME: Final = 64
"""Names up to this length are cached, since most messages have the same."""


@plain_members
class Part(Enum):
    """The next part of a direction: see the table in http1_messages.py."""

    HEAD = auto()
    BODY = auto()
    COUNTED = auto()
    CHUNK_LINE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILER = auto()
    UNTIL_END = auto()


NO_BODY: Final = (Part.COUNTED, 0)


def framing(fields: Fields, version: bytes, *, request: bool) -> tuple[Part, int]:
    """How the body of a message is delimited (RFC 9112 §6.3), and its length if it has one."""
    if b"transfer-encoding" not in fields.named:  # most have one length or none
        values = fields.named.get(b"content-length", ())
        if not values:
            return NO_BODY if request else (Part.UNTIL_END, 0)
        if len(values) == 1 and values[0].isdigit() and len(values[0]) <= MAX_LENGTH_DIGITS:
            return Part.COUNTED, int(values[0])
    codings = [coding for coding in fields.items(b"transfer-encoding") if coding != b"identity"]
    lengths = set(fields.items(b"content-length"))
    if codings:
        # "A server MAY reject a request that contains both", since it may be smuggling. For a
        # response every client follows "the Transfer-Encoding overrides the Content-Length".
        if request and lengths:
            raise ProtocolError("HTTP/1: both Content-Length and Transfer-Encoding")
        if version == b"HTTP/1.0":
            raise ProtocolError("HTTP/1: Transfer-Encoding in HTTP/1.0")
        if codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
            return Part.CHUNK_LINE, 0
        if request or b"chunked" in codings:
            raise ProtocolError("HTTP/1: a Transfer-Encoding that does not end in chunked")
        return Part.UNTIL_END, 0
    if not lengths:
        return NO_BODY if request else (Part.UNTIL_END, 0)
    length = lengths.pop()
    if lengths or _LENGTH.fullmatch(length) is None:
        raise ProtocolError("HTTP/1: conflicting or malformed Content-Length")
    return Part.COUNTED, int(length)


def not_whole(data: bytes, at: int, partial: re.Match[bytes] | None, fault: str) -> int:
    """0 as long as the bytes at `at` can still become a head. Raises ProtocolError otherwise."""
    if partial is None:
        raise ProtocolError(f"HTTP/1: {fault}")
    if len(data) - at >= MAX_PEEK:
        raise ProtocolError("HTTP/1: a head longer than 64 KiB")
    return 0
