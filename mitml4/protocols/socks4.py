"""SOCKS4 and 4a: one request, one reply.

    client                                                   server
    04 cmd port(2) ip(4) userid 00 [domain 00]   ───────►
                                                 ◄───────    00 code port(2) ip(4)

Source: "SOCKS: A protocol for TCP proxy across firewalls" (Ying-Da Lee), and "SOCKS 4A: A Simple
Extension to SOCKS 4 Protocol": after an address 0.0.0.x, x not 0, a domain name follows.
"""

from __future__ import annotations

import ipaddress
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Details, Opening, Protocol, Target, Verdict
from mitml4.protocols.parts.fields import Reader, evaluate
from mitml4.protocols.parts.turns import Turns

__all__ = ["PROTOCOL", "Socks4", "Socks4Details"]

MAX_TEXT: Final = 512
"""Bytes; no userid or domain is longer."""

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
    """What the client asks for; `domain` is empty where it names an address."""

    command: int
    target: Target
    userid: bytes
    domain: bytes


def read_request(reader: Reader) -> Request:
    """A whole request."""
    reader.one_of(b"\x04")
    command = reader.uint(1, min(COMMANDS), max(COMMANDS))
    port, address = reader.uint(2), reader.take(4)
    is_name = address[:3] == bytes(3) and address[3] != 0
    nowhere = address[0] == 0 and not is_name  # RFC 6890 §2.2.2
    if nowhere or (port == 0 and COMMANDS[command] == "connect"):
        raise ProtocolError("a request for no destination")
    userid = reader.until(b"\0", MAX_TEXT)
    domain = reader.until(b"\0", MAX_TEXT) if is_name else b""
    if is_name and not domain:
        raise ProtocolError("an empty domain name")
    host = domain.decode("ascii") if is_name else str(ipaddress.ip_address(address))
    return Request(command, Target(host, port), userid, domain)


def detect(opening: Opening) -> Verdict:
    """A whole request from the client, which always speaks first.

    A request without a text needs its reply: an array of small numbers can begin with the same
    bytes.
    """
    if opening.down and not opening.up:
        return Verdict.REJECT
    verdict = evaluate(read_request, opening.up)
    if verdict is not Verdict.MATCH:
        return verdict
    request = read_request(Reader(opening.up))
    if request.userid or request.domain:
        return Verdict.MATCH
    answer = evaluate(_read_answer, opening.down)
    if answer is not Verdict.NEED_MORE:
        return answer
    return Verdict.REJECT if opening.down_ended else Verdict.LIKELY


def _read_answer(reader: Reader) -> None:
    """The beginning of a reply: version 0 (some servers send 4), and the code."""
    reader.one_of(b"\x00", b"\x04")
    reader.uint(1, min(REPLIES), max(REPLIES))


@dataclass(frozen=True, slots=True, kw_only=True)
class Socks4Details(Details):
    """Names as in the specification; `username` is the userid, empty if none was sent."""

    username: bytes | None = None
    command: str | None = None
    target: Target | None = None
    reply: str | None = None


@dataclass(slots=True)
class Socks4(Turns):
    """Reads request and reply; after a granted CONNECT both sides are SWITCH."""

    name: ClassVar[str] = "socks4"

    elsewhere: bool = True
    request: Request | None = None
    reply: str | None = None

    def __post_init__(self) -> None:
        self.client_next(self._request)

    def details(self) -> Socks4Details:
        if self.request is None:
            return Socks4Details()
        return Socks4Details(
            username=self.request.userid,
            command=COMMANDS[self.request.command],
            target=self.request.target,
            reply=self.reply,
        )

    def _request(self, reader: Reader) -> None:
        self.request = read_request(reader)
        self.ask_for(self.request.target)
        self.server_next(self._reply)

    def _reply(self, reader: Reader) -> None:
        """`VN CD DSTPORT DSTIP`: VN is 0, but some servers send 4."""
        reader.one_of(b"\x00", b"\x04")
        code = reader.uint(1, min(REPLIES), max(REPLIES))
        reader.take(2 + 4)
        assert self.request is not None
        self.reply = REPLIES[code]
        if code == GRANTED and COMMANDS[self.request.command] == "connect":
            self.go_inside()
        else:
            self.stay_plain()  # a refusal, or BIND, whose second reply comes much later


PROTOCOL: Final = Protocol(
    name=Socks4.name,
    detect=detect,
    converse=lambda context: Socks4(context=context),
    is_proxy=True,
    client_first=b"\x04",
    server_first=b"",
)
