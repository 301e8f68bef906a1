"""RTSP (RFC 2326, RFC 7826): its request line, and details from the first request and its
answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Direction, Protocol, Verdict
from mitml4.protocols.parts.evidence import either_side
from mitml4.protocols.parts.heads import FirstHeads
from mitml4.protocols.parts.lines import begins, prefix_pattern
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Rtsp", "RtspDetails"]

_EMPTY_LINES: Final = rb"[\r\n]{0,4}"
_METHOD: Final = rb"[A-Z_]{1,20}"
_IN_TARGET: Final = rb"[^\x00-\x1f\x7f]"
_REQUEST: Final = regex(
    _EMPTY_LINES + rb"(" + _METHOD + rb") (" + _IN_TARGET + rb"+?) RTSP/[12]\.[0-9]\r?\n"
)
_REQUEST_BEGUN: Final = prefix_pattern(_EMPTY_LINES, _METHOD, rb" ", _IN_TARGET + rb"+", rb"\r")
_ANSWER: Final = regex(rb"RTSP/[12]\.[0-9] [1-5][0-9]{2}[ \r\n]")
_ANSWER_BEGUN: Final = prefix_pattern(
    *(b"R", b"T", b"S", b"P", b"/", b"[12]", rb"\.", b"[0-9]", b" ", b"[1-5]"), *[b"[0-9]"] * 2
)


def _message(data: bytes) -> Verdict:
    request = begins(data, _REQUEST, _REQUEST_BEGUN)
    answer = begins(data, _ANSWER, _ANSWER_BEGUN)
    if Verdict.MATCH in (request, answer):
        return Verdict.MATCH
    return answer if request is Verdict.REJECT else request


detect = either_side(_message)
"""A request line; or a status line, where a capture begins midway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspDetails(Details):
    """From the first request and the first response."""

    method: bytes | None = None
    uri: bytes | None = None
    user_agent: bytes | None = None
    server: bytes | None = None


@dataclass(slots=True)
class Rtsp(FirstHeads):
    """Reads one head of each side."""

    name: ClassVar[str] = "rtsp"

    method: bytes | None = None
    uri: bytes | None = None
    user_agent: bytes | None = None
    server: bytes | None = None

    def head(self, direction: Direction, line: bytes, headers: Mapping[bytes, bytes]) -> None:
        if direction is Direction.DOWN:
            self.server = headers.get(b"server")
        elif request := _REQUEST.match(line + b"\n"):
            self.method, uri = request.groups()
            self.uri = self.context.shown.url(uri)
            self.user_agent = headers.get(b"user-agent")

    def details(self) -> RtspDetails:
        return RtspDetails(
            method=self.method, uri=self.uri, user_agent=self.user_agent, server=self.server
        )


PROTOCOL: Final = Protocol(
    name=Rtsp.name,
    detect=detect,
    converse=lambda context: Rtsp(context=context),
    client_first=b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_\r\n",
    server_first=b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_\r\n",
)
