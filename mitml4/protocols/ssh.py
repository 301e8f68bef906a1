"""SSH up to its key exchange: two identification lines, in either order.

    SSH-protoversion-softwareversion SP comments CR LF           RFC 4253 §4.2

The server may send other lines before its identification; `1.99` means 2.0 with support for 1.x
(§5.1). After the lines everything is binary, and soon encrypted. KEXINIT is the last message in
plain text, and a capture may begin with it. Nothing is held back, not even a part of a line,
because no inner protocol follows.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Conversation,
    Details,
    Direction,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.fields import PRINTABLE, Reader, evaluate
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Ssh", "SshDetails"]

PREFIXES: Final = (b"SSH-2.0-", b"SSH-1.99-", b"SSH-1.5-")
_STATUS_LINE: Final = regex(rb"[A-Z]{3,10}/[0-9]")
"""The beginning of answers of HTTP, RTSP, SIP and Gnutella: it is no text before an
identification."""
MAX_LINE: Final = 1024
"""RFC 4253 §4.2 allows 255 bytes; OpenSSH accepts far more from a server."""
MAX_PREAMBLE: Final = 16384
"""Bytes that a server may send before its identification line."""

TEXT: Final = bytes({0x09, 0x0A, 0x0D, *range(0x20, 0x7F), *range(0x80, 0x100)})
"""The bytes of lines in UTF-8 (§4.2), without control characters."""


# RFC 4253 §6, §6.1, §7.1
KEXINIT: Final = b"\x14"
COOKIE_BYTES: Final = 16
SMALLEST_KEXINIT: Final = 1 + 1 + COOKIE_BYTES + 10 * 4 + 1 + 4
MAX_PACKET: Final = 35000
MIN_PADDING: Final = 4
SHORTEST_METHOD: Final = 8


def read_kexinit(reader: Reader) -> None:
    """`packet length, padding length, KEXINIT, cookie`, and the names of key exchanges."""
    length = reader.uint(4, SMALLEST_KEXINIT, MAX_PACKET)
    packet = reader.part(length)
    packet.uint(1, MIN_PADDING)
    packet.one_of(KEXINIT)
    packet.take(COOKIE_BYTES)
    packet.take(packet.uint(4, SHORTEST_METHOD, length), PRINTABLE)


def detect(opening: Opening) -> Verdict:
    """The client's identification is certain; the server's is LIKELY while the client is silent.

    Empty lines from the client count as silence: the server has identified itself by then.
    """
    if not opening.up.strip(b"\r\n"):
        return _by_server(opening)
    if opening.up[0] == 0:
        return evaluate(read_kexinit, opening.up)
    identified = _identified(opening.up)
    if identified is None:
        return Verdict.REJECT
    return Verdict.MATCH if identified else Verdict.NEED_MORE


def _identified(data: bytes) -> bool | None:
    """Whether these bytes begin with an identification; None: they never will."""
    if data.startswith(PREFIXES):
        return True
    return False if any(prefix.startswith(data) for prefix in PREFIXES) else None


def _by_server(opening: Opening) -> Verdict:
    """The verdict on the server's bytes while the client is silent."""
    if opening.down[:1] == b"\0":
        verdict = evaluate(read_kexinit, opening.down)
        return Verdict.LIKELY if verdict is Verdict.MATCH else verdict
    start = _identification(opening.down)
    if opening.down[:start].translate(None, TEXT) or _STATUS_LINE.match(opening.down):
        return Verdict.REJECT
    line = opening.down[start:]
    if _identified(line):
        return Verdict.MATCH if opening.up_ended else Verdict.LIKELY
    if line.translate(None, TEXT) or (line.startswith(b"SSH-") and _identified(line) is None):
        return Verdict.REJECT
    return Verdict.NEED_MORE


def _identification(down: bytes) -> int:
    """Where the identification line begins; or else the last line."""
    start = 0
    while not down.startswith(b"SSH-", start):
        newline = down.find(b"\n", start)
        if newline < 0:
            break
        start = newline + 1
    return start


@dataclass(frozen=True, slots=True, kw_only=True)
class SshDetails(Details):
    """The software version of each side, with comments: `OpenSSH_9.6p1 Debian-5`."""

    client_software: bytes | None = None
    server_software: bytes | None = None


@dataclass(slots=True)
class Ssh(Conversation):
    """Reads both identification lines, and takes each byte at once; the rest passes."""

    name: ClassVar[str] = "ssh"

    _software: dict[Direction, bytes | None] = field(default_factory=dict)
    """By direction, once known; None for a side that ended before."""
    _line: dict[Direction, bytes] = field(
        default_factory=lambda: dict.fromkeys(Direction, b""), repr=False
    )
    _preamble: int = 0

    def feed(self, direction: Direction, data: bytes) -> int:
        *lines, rest = (self._line[direction] + data).split(b"\n")
        for line in lines:
            if line.startswith((b"SSH-", b"\0")):
                self._identify(direction, line)
                return len(data)
            self._other_line(direction, line)
        if rest.startswith(b"\0"):
            self._identify(direction, rest)
            return len(data)
        _check_length(rest)
        self._line[direction] = rest
        return len(data)

    def _identify(self, direction: Direction, line: bytes) -> None:
        if line.startswith(b"\0"):  # a packet: the line was not captured
            self.set_directive(direction, FORWARD_ALL)
            self._learn(direction, None)
            return
        _check_length(line)
        if not line.startswith(PREFIXES):
            raise ProtocolError("SSH: an unknown protocol version")
        self.set_directive(direction, FORWARD_ALL)
        self._learn(direction, line.removesuffix(b"\r").split(b"-", 2)[2])

    def _other_line(self, direction: Direction, line: bytes) -> None:
        """§4.2: the server MAY send other lines of data before sending the version string."""
        _check_length(line)
        self._preamble += len(line) + 1
        if direction is Direction.UP or self._preamble > MAX_PREAMBLE:
            raise ProtocolError("SSH: no identification line")

    def end(self, direction: Direction) -> None:
        if direction not in self._software:
            self._learn(direction, None)

    def _learn(self, direction: Direction, software: bytes | None) -> None:
        self._software[direction] = software
        self.details_ready = len(self._software) == len(Direction)

    def details(self) -> SshDetails:
        return SshDetails(
            client_software=self._software.get(Direction.UP),
            server_software=self._software.get(Direction.DOWN),
        )


def _check_length(line: bytes) -> None:
    if len(line) > MAX_LINE:
        raise ProtocolError("SSH: a line that does not end")


PROTOCOL: Final = Protocol(
    name=Ssh.name,
    detect=detect,
    converse=lambda context: Ssh(context=context),
    client_first=b"S\r\n\0",
    server_first=TEXT + b"\0",
)
