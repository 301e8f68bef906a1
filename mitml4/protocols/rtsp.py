"""RTSP (RFC 2326, RFC 7826): its request line, and details from the first request and its
answer."""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PEEK,
    SWITCH,
    Details,
    Direction,
    Directive,
    Protocol,
    Verdict,
)
from mitml4.protocols.expected import Announcement
from mitml4.protocols.parts.evidence import either_side
from mitml4.protocols.parts.lines import begins, prefix_pattern
from mitml4.protocols.parts.messages import Message, MessageConversation
from mitml4.regex import regex

__all__ = ["PROTOCOLS", "Rtsp", "RtspDetails"]

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


_MEDIA_PORTS: Final = regex(
    rb"(client|server)_port=([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?", re.IGNORECASE
)
MAX_WATCHED: Final = 1 << 16


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
class Rtsp(MessageConversation):
    """The first head of each side, and where media will be: on ports, or in frames among the
    messages, which are a layer inside."""

    name: ClassVar[str] = "rtsp"
    read_on: ClassVar[Directive] = PEEK

    method: bytes | None = None
    uri: bytes | None = None
    user_agent: bytes | None = None
    server: bytes | None = None

    _watched: int = 0
    """Bytes that were read for what they announce."""
    _interleaves: bool = False
    """Whether frames among the messages were agreed on."""

    def feed(self, direction: Direction, data: bytes) -> int:
        watched = data[: MAX_WATCHED - self._watched]
        self._watched += len(watched)
        self.copied(direction, watched)
        messages = self._messages[direction]
        goes_on = self.directive(direction.other) is not FORWARD_ALL
        if self._interleaves and messages.has_frames and goes_on:
            self.inner = "rtp"
            self.details_ready = True
            self.up = self.down = SWITCH
            return len(watched) - messages.unread
        if self._watched >= MAX_WATCHED:
            self.up = self.down = FORWARD_ALL
        return len(data)

    def message(self, direction: Direction, message: Message, *, is_first: bool) -> None:
        transport = message.headers.get(b"transport", b"")
        if b"RTP/" in transport:
            self._read_transport(transport)
        if not is_first:
            return
        if direction is Direction.DOWN:
            self.server = message.headers.get(b"server")
        elif request := _REQUEST.match(message.line + b"\n"):
            self.method, uri = request.groups()
            self.uri = self.context.shown.url(uri)
            self.user_agent = message.headers.get(b"user-agent")

    def _read_transport(self, transport: bytes) -> None:
        """RFC 2326 §12.39: pairs of ports, of the client and of the server; or channels."""
        self._interleaves = self._interleaves or b"interleaved=" in transport.lower()
        for side, first, second in _MEDIA_PORTS.findall(transport):
            for protocol, port in ("rtp", first), ("rtcp", second):
                if port:
                    announcement = Announcement(
                        protocol=protocol,
                        transport="udp",
                        of_client=side.lower() == b"client",
                        port=int(port),
                    )
                    self.announced.append(announcement)

    def details(self) -> RtspDetails:
        return RtspDetails(
            method=self.method, uri=self.uri, user_agent=self.user_agent, server=self.server
        )


PROTOCOLS: Final = (
    Protocol(
        name=Rtsp.name,
        detect=detect,
        converse=lambda context: Rtsp(context=context),
        client_first=b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_\r\n",
        server_first=b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_\r\n",
    ),
    Protocol(name="rtp", detect=None),
)
