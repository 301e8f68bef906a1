"""RTSP (RFC 2326, RFC 7826), by its request line; facts from the first request and its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from mitml4.protocols.conversation import Direction, Facts, Opening, Protocol, Verdict
from mitml4.protocols.heads import FirstHeads
from mitml4.protocols.lines import begun

__all__ = ["PROTOCOL", "Rtsp", "RtspFacts"]

_METHOD: Final = rb"[A-Z_]{1,20}"
_SCHEME: Final = rb"rtsp[us]?"
_IN_TARGET: Final = rb"[^\x00-\x1f\x7f]"
_REQUEST: Final = re.compile(
    rb"(" + _METHOD + rb") (" + _SCHEME + rb"://" + _IN_TARGET + rb"*?|\*) RTSP/[12]\.[0-9]\r?\n"
)
_SCHEME_BEGUN: Final = rb"(?:r|rt|rts|" + _SCHEME + rb"(?::/?)?)"
_REQUEST_BEGUN: Final = begun(
    _METHOD,
    rb" ",
    rb"(?:" + _SCHEME_BEGUN + rb"|" + _SCHEME + rb"://" + _IN_TARGET + rb"*\r?"
    rb"|\*(?: (?:R|RT|RTS|RTSP|RTSP/|RTSP/[12]|RTSP/[12]\.|RTSP/[12]\.[0-9]\r?)?)?)",
)
_ANSWER: Final = re.compile(rb"RTSP/[12]\.[0-9] [1-5][0-9]{2}[ \r\n]")
_ANSWER_BEGUN: Final = begun(
    *(b"R", b"T", b"S", b"P", b"/", b"[12]", rb"\.", b"[0-9]", b" ", b"[1-5]"), *[b"[0-9]"] * 2
)


def detect(opening: Opening) -> Verdict:
    """A request line; where the client is silent, a status line."""
    if opening.up:
        return _verdict(opening.up, _REQUEST, _REQUEST_BEGUN)
    server = _verdict(opening.down, _ANSWER, _ANSWER_BEGUN)
    if server is not Verdict.MATCH:
        return server
    return Verdict.MATCH if opening.up_ended else Verdict.LIKELY


def _verdict(data: bytes, whole: re.Pattern[bytes], beginning: re.Pattern[bytes]) -> Verdict:
    if whole.match(data):
        return Verdict.MATCH
    return Verdict.NEED_MORE if beginning.fullmatch(data) else Verdict.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class RtspFacts(Facts):
    """Of the first request and the first answer."""

    method: bytes | None = None
    uri: bytes | None = None
    user_agent: bytes | None = None
    server: bytes | None = None


@dataclass(slots=True)
class Rtsp(FirstHeads):
    """One head of each side."""

    name: ClassVar[str] = "rtsp"

    method: bytes | None = None
    uri: bytes | None = None
    user_agent: bytes | None = None
    server: bytes | None = None

    def head(self, direction: Direction, line: bytes, headers: Mapping[bytes, bytes]) -> None:
        if direction is Direction.DOWN:
            self.server = headers.get(b"server")
        elif request := _REQUEST.match(line + b"\n"):
            self.method, self.uri = request.groups()
            self.user_agent = headers.get(b"user-agent")

    def facts(self) -> RtspFacts:
        return RtspFacts(
            method=self.method, uri=self.uri, user_agent=self.user_agent, server=self.server
        )


PROTOCOL: Final = Protocol(
    name=Rtsp.name,
    detect=detect,
    converse=lambda around: Rtsp(around=around),
    client_first=b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_",
    server_first=b"R",
)
