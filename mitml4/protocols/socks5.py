"""SOCKS5 (RFC 1928) with user/password authentication (RFC 1929).

    client                                server
    05 N methods            ───────►
                            ◄───────      05 method               FF: none will do; it closes
    01 ULEN user PLEN pass  ───────►                              method 02 only
                            ◄───────      01 status               0: welcome; else it closes
    05 cmd 00 ATYP …        ───────►
                            ◄───────      05 reply 00 ATYP …      CONNECT and 00: inner begins

The sides take turns. An optimistic client sends all of this, and the first inner bytes, in one
segment; but what a unit is depends on the answer before it, so the side whose turn it is not is
held. GSSAPI (RFC 1961) and private methods may wrap all that follows in a form of their
own: they are named, and the rest passes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
    End,
    Opening,
    Protocol,
    Target,
    Unreadable,
    Verdict,
)
from mitml4.protocols.parts.fields import Reader, evaluate

__all__ = ["PROTOCOL", "Socks5", "Socks5Details"]

VERSION: Final = 5
NO_AUTHENTICATION: Final = 0x00
USERNAME_PASSWORD: Final = 0x02
NONE_ACCEPTABLE: Final = 0xFF

# RFC 1928 §3, and the IANA registry "Socket Secure (SOCKS) Protocol Methods"
METHODS: Final = {
    0x00: "no authentication required",
    0x01: "gssapi",
    0x02: "username/password",
    0x03: "chap",
    0x05: "cram",
    0x06: "ssl",
    0x07: "nds",
    0x08: "multi-authentication framework",
    0x09: "json parameter block",
    0xFF: "no acceptable methods",
}
REGISTERED: Final = bytes(METHODS.keys() - {NONE_ACCEPTABLE})
PRIVATE: Final = bytes(range(0x80, NONE_ACCEPTABLE))

# RFC 1928 §4
COMMANDS: Final = {1: "connect", 2: "bind", 3: "udp associate"}

# RFC 1928 §6
REPLIES: Final = {
    0: "succeeded",
    1: "general SOCKS server failure",
    2: "connection not allowed by ruleset",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
    7: "command not supported",
    8: "address type not supported",
}


def method_name(method: int) -> str:
    """A method's name; `private 0x80` and `unassigned 0x0a` for those that have none."""
    kind = "private" if 0x80 <= method <= 0xFE else "unassigned"
    return METHODS.get(method, f"{kind} {method:#04x}")


def read_answers(reader: Reader) -> None:
    """A server's choice of a method, what it says to a password, and its reply to the request."""
    reader.one_of(b"\x05")
    if reader.one_of(b"\x00", b"\x02") == b"\x02":
        reader.one_of(b"\x01\x00")
    reader.one_of(b"\x05")
    reader.uint(1, 0, max(REPLIES))
    reader.one_of(b"\x00\x01", b"\x00\x03", b"\x00\x04")
    reader.take(4)


def detect(opening: Opening) -> Verdict:
    """`05 N` and N methods from the client, who always speaks first.

    Registered methods are certain, and so is an orderly list; private ones need the choice of one
    of them. A server's answers alone are what a capture of one direction shows.
    """
    up = opening.up
    if not up:
        verdict = evaluate(read_answers, opening.down)
        return Verdict.LIKELY if verdict is Verdict.MATCH and not opening.up_ended else verdict
    if up[0] != VERSION or (len(up) > 1 and up[1] == 0):
        return Verdict.REJECT
    methods = up[2 : 2 + up[1]] if len(up) > 1 else b""
    orderly = _ascending(methods)
    if not orderly and methods.translate(None, REGISTERED + PRIVATE):
        return Verdict.REJECT
    if len(up) == 1 or len(methods) < up[1]:
        return Verdict.REJECT if opening.up_ended else Verdict.NEED_MORE
    if orderly or not methods.translate(None, REGISTERED):
        return Verdict.MATCH
    return evaluate(lambda reader: _read_choice(reader, methods), opening.down)


def _ascending(methods: bytes) -> bool:
    """Whether they are an orderly list of any methods, beginning with a well-known one."""
    in_order = all(low < high for low, high in pairwise(methods))
    return in_order and methods[:1] <= b"\x02" and methods[-1:] != b"\xff"


def _read_choice(reader: Reader, methods: bytes) -> None:
    """`VER METHOD` (RFC 1928 §3)."""
    reader.one_of(b"\x05")
    reader.one_of(*(bytes([method]) for method in {*methods, NONE_ACCEPTABLE}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Socks5Details(Details):
    """Names as in the RFCs. The password is never kept."""

    methods_offered: tuple[str, ...] | None = None
    method: str | None = None
    username: bytes | None = None
    command: str | None = None
    target: Target | None = None
    reply: str | None = None
    """The reply's name; `authentication failed` where it ended there."""


@dataclass(slots=True)
class Socks5(Conversation):
    """The handshake, one unit a turn; both sides are SWITCH after a CONNECT that succeeded."""

    name: ClassVar[str] = "socks5"

    elsewhere: bool = True
    methods: bytes | None = None
    method: int | None = None
    username: bytes | None = None
    command: int | None = None
    reply: str | None = None
    _reader: Callable[[bytes], int] = field(init=False, repr=False)
    """Who reads the next unit, of the side whose turn it is: bytes in, how many it took out."""

    def __post_init__(self) -> None:
        self._await_client(self._greeting)

    def feed(self, direction: Direction, data: bytes) -> int:
        return self._reader(data)

    def end(self, direction: Direction) -> None:
        """Whoever leaves in mid-handshake, the other's last words still pass."""
        if direction is Direction.DOWN:
            self._pass_all()
        elif self.down is PAUSE:
            self.down = FORWARD_ALL

    def details(self) -> Socks5Details:
        return Socks5Details(
            methods_offered=_names(self.methods),
            method=None if self.method is None else method_name(self.method),
            username=self.username,
            command=_command_name(self.command),
            target=self.target,
            reply=self.reply,
        )

    def asked_ahead(self, data: bytes) -> Sequence[End] | None:
        """An optimistic client's request, behind its credentials if there are any."""
        if self._reader not in (self._choice, self._status):
            return super(Socks5, self).asked_ahead(data)
        try:
            start = _credentials_end(data) if data[0] == 1 else 0
            end = None if start is None else _address_end(data[start:])
        except ProtocolError as error:
            return [Unreadable(error.message)]
        if start is None or end is None:
            return []
        return [_address(data[start + 3 : start + end])]

    def _greeting(self, data: bytes) -> int:
        """`VER NMETHODS METHODS` (RFC 1928 §3)."""
        _expect(data[0] == VERSION, "SOCKS5: the greeting has another version")
        if len(data) < 2 or len(data) < 2 + data[1]:
            return 0
        end = 2 + data[1]
        self.methods = data[2:end]
        self._await_server(self._choice)
        return end

    def _choice(self, data: bytes) -> int:
        """`VER METHOD` (RFC 1928 §3)."""
        _expect(data[0] == VERSION, "SOCKS5: the method selection has another version")
        if len(data) < 2:
            return 0
        self.method = data[1]
        offered = self.methods or b""
        _expect(
            self.method in offered or self.method == NONE_ACCEPTABLE,
            "SOCKS5: the server selects a method that was not offered",
        )
        if self.method == NO_AUTHENTICATION:
            self._await_client(self._request)
        elif self.method == USERNAME_PASSWORD:
            self._await_client(self._credentials)
        else:
            if self.method != NONE_ACCEPTABLE:
                self.named.append(Unreadable("SOCKS5: a method that may wrap the request"))
            self._pass_all()
        return 2

    def _credentials(self, data: bytes) -> int:
        """`01 ULEN UNAME PLEN PASSWD` (RFC 1929 §2)."""
        _expect(data[0] == 1, "SOCKS5: the credentials have another version")
        end = _credentials_end(data)
        if end is None:
            return 0
        self.username = data[2 : 2 + data[1]]
        self._await_server(self._status)
        return end

    def _status(self, data: bytes) -> int:
        """`VER STATUS` (RFC 1929 §2); a version other than 01 is a common sin of servers."""
        if len(data) < 2:
            return 0
        if data[1] == 0:
            self._await_client(self._request)
        else:
            self.reply = "authentication failed"
            self._pass_all()
        return 2

    def _request(self, data: bytes) -> int:
        """`VER CMD RSV ATYP DST.ADDR DST.PORT` (RFC 1928 §4)."""
        _expect(data[0] == VERSION, "SOCKS5: the request has another version")
        end = _address_end(data)
        if end is None:
            return 0
        self.command = data[1]
        self.target = _address(data[3:end])
        if _command_name(self.command) != "udp associate":  # there it is the client's own address
            self.named.append(self.target)
        self._await_server(self._reply)
        return end

    def _reply(self, data: bytes) -> int:
        """`VER REP RSV ATYP BND.ADDR BND.PORT` (RFC 1928 §6)."""
        _expect(data[0] == VERSION, "SOCKS5: the reply has another version")
        if len(data) < 2:
            return 0
        if data[1] != 0 or _command_name(self.command) != "connect":
            # What comes next is a refusal's rest, BIND's second reply, or an association that
            # stands as long as this connection: nothing to look into.
            self.reply = _reply_name(data[1])
            self._pass_all()
            return 2
        end = _address_end(data)
        if end is None:
            return 0
        self.reply = _reply_name(0)
        self.details_ready = True
        self.up = self.down = SWITCH
        return end

    def _await_client(self, reader: Callable[[bytes], int]) -> None:
        self._reader = reader
        self.up, self.down = PEEK, PAUSE

    def _await_server(self, reader: Callable[[bytes], int]) -> None:
        self._reader = reader
        self.up, self.down = PAUSE, PEEK

    def _pass_all(self) -> None:
        self.details_ready = True
        self.up = self.down = FORWARD_ALL


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ProtocolError(message)


def _credentials_end(data: bytes) -> int | None:
    """Where the credentials end, or None as long as that has not come (RFC 1929 §2)."""
    if len(data) < 2 or len(data) < 3 + data[1]:
        return None
    end = 3 + data[1] + data[2 + data[1]]
    return end if len(data) >= end else None


def _address_end(data: bytes) -> int | None:
    """Where a request or reply ends, or None as long as that has not come (RFC 1928 §5)."""
    if len(data) < 5:
        return None
    match data[3]:
        case 1:
            size = 4
        case 3:
            size = 1 + data[4]
        case 4:
            size = 16
        case kind:
            raise ProtocolError(f"SOCKS5: unknown address type {kind}")
    end = 4 + size + 2
    return end if len(data) >= end else None


def _address(data: bytes) -> Target:
    """A whole `ATYP ADDR PORT`."""
    host, port = data[1:-2], int.from_bytes(data[-2:], "big")
    if data[0] == 3:
        return Target(host[1:].decode("utf-8", "backslashreplace"), port)
    return Target(str(ipaddress.ip_address(host)), port)


def _names(methods: bytes | None) -> tuple[str, ...] | None:
    return None if methods is None else tuple(method_name(method) for method in methods)


def _command_name(command: int | None) -> str | None:
    return None if command is None else COMMANDS.get(command, f"unknown {command:#04x}")


def _reply_name(reply: int) -> str:
    return REPLIES.get(reply, f"unassigned {reply:#04x}")


PROTOCOL: Final = Protocol(
    name=Socks5.name,
    detect=detect,
    converse=lambda context: Socks5(context=context),
    client_first=b"\x05",
    server_first=b"\x05",
)
