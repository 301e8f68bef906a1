"""SOCKS4 and 4a: one request, one reply.

    client                                                   server
    04 cmd port(2) ip(4) userid 00 [domain 00]   ───────►
                                                 ◄───────    00 code port(2) ip(4)

Source: "SOCKS: A protocol for TCP proxy across firewalls" (Ying-Da Lee), and "SOCKS 4A: A Simple
Extension to SOCKS 4 Protocol": an address 0.0.0.x, x not 0, says that a domain name follows.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import ClassVar, Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Details,
    Direction,
    Directive,
    Opening,
    Protocol,
    Target,
    Verdict,
)
from mitml4.protocols.parts.fields import Reader, evaluate

__all__ = ["PROTOCOL", "Socks4", "Socks4Details"]

VERSION: Final = 4
HEAD: Final = 8
SMALLEST: Final = HEAD + 1
REPLY: Final = 8
MAX_TEXT: Final = 512
"""A userid or a domain that does not end within this many bytes is none."""

COMMANDS: Final = {1: "connect", 2: "bind"}
GRANTED: Final = 0x5A
REPLIES: Final = {
    0x5A: "request granted",
    0x5B: "request rejected or failed",
    0x5C: "rejected: no identd on the client",
    0x5D: "rejected: identd reports another user",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request, and how many bytes it was."""

    command: int
    target: Target
    userid: bytes
    size: int


def parse(data: bytes) -> Request | None:
    """The request that these bytes begin with; None as long as it is not whole.

    Raises ProtocolError at the first byte that rules it out.
    """
    if data[:1] not in (b"", b"\x04") or (len(data) > 1 and data[1] not in COMMANDS):
        raise ProtocolError("SOCKS4: no request")
    if len(data) < HEAD:
        return None
    port, address = int.from_bytes(data[2:4], "big"), data[4:8]
    nowhere = address[0] == 0 and (address[:3] != bytes(3) or address[3] == 0)  # RFC 6890 §2.2.2
    if nowhere or (port == 0 and COMMANDS[data[1]] == "connect"):
        raise ProtocolError("SOCKS4: a request for no destination")
    userid = _text(data, HEAD)
    if userid is None:
        return None
    end = HEAD + len(userid) + 1
    host = str(ipaddress.ip_address(address))
    if address[:3] == bytes(3):
        domain = _text(data, end)
        if domain is None:
            return None
        if not domain:
            raise ProtocolError("SOCKS4: an empty domain name")
        end += len(domain) + 1
        host = domain.decode("ascii")
    return Request(data[1], Target(host, port), userid, end)


def _text(data: bytes, start: int) -> bytes | None:
    """The printable text from `start` to a NUL; None as long as there is none."""
    end = data.find(b"\0", start, start + MAX_TEXT + 1)
    text = data[start : start + MAX_TEXT + 1] if end < 0 else data[start:end]
    if len(text) > MAX_TEXT or not all(0x20 <= byte < 0x7F for byte in text):
        raise ProtocolError("SOCKS4: a text that is too long or not printable")
    return None if end < 0 else text


def detect(opening: Opening) -> Verdict:
    """A whole request from the client, who always speaks first.

    One without a text needs its reply: an array of small numbers can begin with the same bytes.
    """
    if opening.down and not opening.up:
        return Verdict.REJECT
    try:
        request = parse(opening.up)
    except ProtocolError:
        return Verdict.REJECT
    if request is None:
        return Verdict.NEED_MORE
    if request.size > SMALLEST:
        return Verdict.MATCH
    answer = evaluate(_read_answer, opening.down)
    if answer is not Verdict.NEED_MORE:
        return answer
    return Verdict.REJECT if opening.down_ended else Verdict.LIKELY


def _read_answer(reader: Reader) -> None:
    """The beginning of a reply: version 0, though some servers say 4, and the code."""
    reader.one_of(b"\x00", b"\x04")
    reader.uint(1, min(REPLIES), max(REPLIES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Socks4Details(Details):
    """Names as in the specification; `username` is the userid, empty where none was sent."""

    username: bytes | None = None
    command: str | None = None
    target: Target | None = None
    reply: str | None = None


@dataclass(slots=True)
class Socks4(Conversation):
    """Request and reply; both sides are SWITCH after a CONNECT that was granted."""

    name: ClassVar[str] = "socks4"

    down: Directive = PAUSE
    elsewhere: bool = True
    request: Request | None = None
    reply: str | None = None

    def feed(self, direction: Direction, data: bytes) -> int:
        return self._request(data) if direction is Direction.UP else self._reply(data)

    def end(self, direction: Direction) -> None:
        """Whoever leaves in mid-handshake, the other's last words still pass."""
        if direction is Direction.DOWN or self.down is PAUSE:
            self._pass_all()

    def details(self) -> Socks4Details:
        if self.request is None:
            return Socks4Details()
        return Socks4Details(
            username=self.request.userid,
            command=COMMANDS[self.request.command],
            target=self.request.target,
            reply=self.reply,
        )

    def _request(self, data: bytes) -> int:
        self.request = parse(data)
        if self.request is None:
            return 0
        self.ask_for(self.request.target)
        self.up, self.down = PAUSE, PEEK
        return self.request.size

    def _reply(self, data: bytes) -> int:
        """`VN CD DSTPORT DSTIP`: VN is 0, though some servers say 4."""
        if data[0] not in (0, VERSION) or (len(data) > 1 and data[1] not in REPLIES):
            raise ProtocolError("SOCKS4: no reply")
        if len(data) < REPLY:
            return 0
        assert self.request is not None
        self.reply = REPLIES[data[1]]
        if data[1] == GRANTED and COMMANDS[self.request.command] == "connect":
            self.details_ready = True
            self.up = self.down = SWITCH
        else:
            self._pass_all()  # a refusal, or BIND, whose second reply comes much later
        return REPLY

    def _pass_all(self) -> None:
        self.details_ready = True
        self.up = self.down = FORWARD_ALL


PROTOCOL: Final = Protocol(
    name=Socks4.name,
    detect=detect,
    converse=lambda context: Socks4(context=context),
    client_first=b"\x04",
    server_first=b"",
)
