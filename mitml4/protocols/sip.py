"""SIP (RFC 3261 §7): its request line, and details from the first head of each side.

Either side may send the request: proxies reuse the connection of a client that has registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Direction, Protocol, Verdict
from mitml4.protocols.parts.evidence import either_side
from mitml4.protocols.parts.lines import begins, prefix_pattern
from mitml4.protocols.parts.messages import Message, MessageConversation
from mitml4.protocols.parts.sdp import announced_media
from mitml4.protocols.payload import Shown
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Sip", "SipDetails", "SipHeads", "message"]

_KEEP_ALIVES: Final = rb"[\r\n]{0,64}"
"""RFC 5626 §3.5.1: pairs of empty lines."""
_METHOD: Final = rb"[A-Z]{2,20}"
_IN_URI: Final = rb"[^\x00-\x20\x7f]"
_REQUEST: Final = regex(_KEEP_ALIVES + rb"(" + _METHOD + rb") (" + _IN_URI + rb"+) SIP/2\.0\r?\n")
_REQUEST_BEGUN: Final = prefix_pattern(
    _KEEP_ALIVES,
    rb"[A-Z]{1,20}",
    rb"(?<=[A-Z]{2}) ",
    _IN_URI + rb"+",
    *(b" ", b"S", b"I", b"P", b"/", b"2", rb"\.", b"0", b"\r"),
)
_ANSWER: Final = regex(_KEEP_ALIVES + rb"SIP/2\.0 [1-6][0-9]{2}[ \r\n]")
_ANSWER_BEGUN: Final = prefix_pattern(
    _KEEP_ALIVES,
    *(b"S", b"I", b"P", b"/", b"2", rb"\.", b"0", b" ", b"[1-6]"),
    *[b"[0-9]"] * 2,
)


def message(data: bytes) -> Verdict:
    request = begins(data, _REQUEST, _REQUEST_BEGUN)
    answer = begins(data, _ANSWER, _ANSWER_BEGUN)
    if Verdict.MATCH in (request, answer):
        return Verdict.MATCH
    return answer if request is Verdict.REJECT else request


detect = either_side(message)
"""A request line; or a status line, where a capture begins midway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SipDetails(Details):
    """From the first request, and the software of each side."""

    method: bytes | None = None
    uri: bytes | None = None
    user_agent: bytes | None = None
    server: bytes | None = None


@dataclass(slots=True)
class SipHeads:
    """What the first heads of both sides say."""

    method: bytes | None = None
    uri: bytes | None = None
    user_agent: bytes | None = None
    server: bytes | None = None

    def add(
        self, direction: Direction, line: bytes, headers: Mapping[bytes, bytes], shown: Shown
    ) -> None:
        request = _REQUEST.match(line + b"\n")
        if request and self.method is None:
            self.method, uri = request.groups()
            self.uri = shown.url(uri)
        software = headers.get(b"user-agent") or headers.get(b"server")
        if direction is Direction.UP:
            self.user_agent = self.user_agent or software
        else:
            self.server = self.server or software

    def details(self) -> SipDetails:
        return SipDetails(
            method=self.method, uri=self.uri, user_agent=self.user_agent, server=self.server
        )


@dataclass(slots=True)
class Sip(MessageConversation):
    """The first head of each side, and the media of all messages."""

    name: ClassVar[str] = "sip"

    heads: SipHeads = field(default_factory=SipHeads)

    def message(self, direction: Direction, message: Message, *, is_first: bool) -> None:
        if is_first:
            self.heads.add(direction, message.line, message.headers, self.context.shown)
        self.announced += announced_media(message.sdp)

    def details(self) -> SipDetails:
        return self.heads.details()


PROTOCOL: Final = Protocol(
    name=Sip.name,
    detect=detect,
    converse=lambda context: Sip(context=context),
    client_first=b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n",
    server_first=b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n",
)
