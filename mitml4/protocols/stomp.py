"""STOMP 1.0 to 1.2: the frame that connects, and details from it and from its answer.

The frame is `CONNECT` or `STOMP` alone on a line, header lines, an empty line, and NUL. In HTTP and
NATS a space follows `CONNECT`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Direction, Opening, Protocol, Verdict
from mitml4.protocols.parts.heads import FirstHeads
from mitml4.protocols.parts.lines import begins, prefix_pattern
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Stomp", "StompDetails"]

MAX_HEADER: Final = 512
"""Bytes of the first header line."""

_HEADER: Final = rb"[a-z][a-z0-9.\-]{1,60}:[^\x00-\x1f\x7f]{0,%d}" % MAX_HEADER
_FRAME: Final = regex(rb"(?:CONNECT|STOMP)\r?\n(?:" + _HEADER + rb"\r?\n|\r?\n\x00)")
_HEADER_BEGUN: Final = prefix_pattern(
    rb"[a-z]", rb"[a-z0-9.\-]{1,60}", rb":[^\x00-\x1f\x7f]{0,%d}" % MAX_HEADER, rb"\r"
).pattern
_CONNECT_BEGUN: Final = prefix_pattern(*(b"C", b"O", b"N", b"N", b"E", b"C", b"T")).pattern
_STOMP_BEGUN: Final = prefix_pattern(*(b"S", b"T", b"O", b"M", b"P")).pattern
_FRAME_BEGUN: Final = regex(
    _CONNECT_BEGUN
    + b"|"
    + _STOMP_BEGUN
    + rb"|(?:CONNECT|STOMP)\r?(?:(?<=[TP\r])\n(?:\r?\n?|"
    + _HEADER_BEGUN
    + rb"))?"
)
_CONNECTED: Final = regex(rb"CONNECTED\r?\n(?:version|server|session|heart-beat):")


def detect(opening: Opening) -> Verdict:
    """The command and first header of the frame; while the client is silent, the answer to it."""
    if opening.up:
        return begins(opening.up, _FRAME, _FRAME_BEGUN)
    return Verdict.LIKELY if _CONNECTED.match(opening.down) else Verdict.NEED_MORE


@dataclass(frozen=True, slots=True, kw_only=True)
class StompDetails(Details):
    """The virtual host and the user from the client, and the server's software."""

    host: bytes | None = None
    username: bytes | None = None
    version: bytes | None = None
    server: bytes | None = None


@dataclass(slots=True)
class Stomp(FirstHeads):
    """Reads the frame that connects, and its answer."""

    name: ClassVar[str] = "stomp"

    host: bytes | None = None
    username: bytes | None = None
    version: bytes | None = None
    server: bytes | None = None

    def head(self, direction: Direction, line: bytes, headers: Mapping[bytes, bytes]) -> None:
        if direction is Direction.UP:
            self.host, self.username = headers.get(b"host"), headers.get(b"login")
        elif line == b"CONNECTED":
            # "If the version header is absent, 1.0 is assumed" (STOMP 1.2, protocol negotiation)
            self.version = headers.get(b"version", b"1.0")
            self.server = headers.get(b"server")

    def details(self) -> StompDetails:
        return StompDetails(
            host=self.host, username=self.username, version=self.version, server=self.server
        )


PROTOCOL: Final = Protocol(
    name=Stomp.name,
    detect=detect,
    converse=lambda context: Stomp(context=context),
    client_first=b"CS",
    server_first=b"C",
)
