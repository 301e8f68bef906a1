"""SOCKS5 (RFC 1928) with user/password authentication (RFC 1929).

    client                                server
    05 N methods            ───────►
                            ◄───────      05 method               FF: none accepted; it closes
    01 ULEN user PLEN pass  ───────►                              method 02 only
                            ◄───────      01 status               0: accepted; else it closes
    05 cmd 00 ATYP …        ───────►
                            ◄───────      05 reply 00 ATYP …      CONNECT and 00: inner begins

The sides take turns. A client may send all of this, and the first inner bytes, in one segment. But
the meaning of a unit depends on the answer before it, so each side waits until its turn. GSSAPI
(RFC 1961) and private methods may wrap everything after them: they are named, and the rest passes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    Details,
    End,
    Opening,
    Protocol,
    Target,
    Unreadable,
    Verdict,
)
from mitml4.protocols.parts.fields import Reader, Short, evaluate
from mitml4.protocols.parts.turns import Turns

__all__ = ["PROTOCOL", "Socks5", "Socks5Details", "read_address"]

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
    """The name of a method, or `private 0x80` or `unassigned 0x0a`."""
    kind = "private" if 0x80 <= method <= 0xFE else "unassigned"
    return METHODS.get(method, f"{kind} {method:#04x}")


def read_answers(reader: Reader) -> None:
    """A server's choice of a method, its answer to a password, and its reply to the request."""
    reader.one_of(b"\x05")
    if reader.one_of(b"\x00", b"\x02") == b"\x02":
        reader.one_of(b"\x01\x00")
    reader.one_of(b"\x05")
    reader.uint(1, 0, max(REPLIES))
    reader.one_of(b"\x00\x01", b"\x00\x03", b"\x00\x04")
    reader.take(4)


def detect(opening: Opening) -> Verdict:
    """`05 N` and N methods from the client, which always speaks first.

    Registered methods are certain, and so is an ascending list; private ones need the server's
    choice of one of them. A capture of one direction may show only the server's answers.
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
    """Whether the methods ascend, and begin with a well-known one."""
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
    """The name of the reply; `authentication failed` where the handshake ended there."""


@dataclass(slots=True)
class Socks5(Turns):
    """Reads the handshake; after a CONNECT that succeeded both sides are SWITCH."""

    name: ClassVar[str] = "socks5"

    elsewhere: bool = True
    methods: bytes | None = None
    method: int | None = None
    username: bytes | None = None
    command: int | None = None
    reply: str | None = None

    def __post_init__(self) -> None:
        self.client_next(self._greeting)

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
        """The request of a client that does not wait, with or without credentials before it."""
        if self.turn not in (self._choice, self._status):
            return super(Socks5, self).asked_ahead(data)
        reader = Reader(data)
        try:
            if data[0] == 1:
                _read_credentials(reader)
            reader.take(3)
            return [read_address(reader)]
        except Short:
            return []
        except ProtocolError as error:
            return [Unreadable(f"SOCKS5: {error.message}")]

    def _greeting(self, reader: Reader) -> None:
        """`VER NMETHODS METHODS` (RFC 1928 §3)."""
        _version(reader, VERSION, "the greeting")
        self.methods = reader.take(reader.uint(1))
        self.server_next(self._choice)

    def _choice(self, reader: Reader) -> None:
        """`VER METHOD` (RFC 1928 §3)."""
        _version(reader, VERSION, "the method selection")
        self.method = reader.uint(1)
        if self.method != NONE_ACCEPTABLE and self.method not in (self.methods or b""):
            raise ProtocolError("the server selects a method that was not offered")
        if self.method == NO_AUTHENTICATION:
            self.client_next(self._request)
        elif self.method == USERNAME_PASSWORD:
            self.client_next(self._credentials)
        else:
            if self.method != NONE_ACCEPTABLE:
                self.named.append(Unreadable("SOCKS5: a method that may wrap the request"))
            self.stay_plain()

    def _credentials(self, reader: Reader) -> None:
        """`01 ULEN UNAME PLEN PASSWD` (RFC 1929 §2)."""
        self.username = _read_credentials(reader)
        self.server_next(self._status)

    def _status(self, reader: Reader) -> None:
        """`VER STATUS` (RFC 1929 §2); many servers send another version than 01."""
        reader.take(1)
        if reader.uint(1) == 0:
            self.client_next(self._request)
        else:
            self.reply = "authentication failed"
            self.stay_plain()

    def _request(self, reader: Reader) -> None:
        """`VER CMD RSV ATYP DST.ADDR DST.PORT` (RFC 1928 §4)."""
        _version(reader, VERSION, "the request")
        command = reader.uint(1)
        reader.take(1)
        self.target = read_address(reader)
        self.command = command
        if _command_name(command) != "udp associate":  # for which it is the client's own address
            self.named.append(self.target)
        self.server_next(self._reply)

    def _reply(self, reader: Reader) -> None:
        """`VER REP RSV ATYP BND.ADDR BND.PORT` (RFC 1928 §6)."""
        _version(reader, VERSION, "the reply")
        reply = reader.uint(1)
        if reply != 0 or _command_name(self.command) != "connect":
            # What follows is the rest of a refusal, the second reply to BIND, or nothing, for an
            # association lasts as long as this connection.
            self.reply = _reply_name(reply)
            self.stay_plain()
            return
        reader.take(1)
        read_address(reader)
        self.reply = _reply_name(0)
        self.go_inside()


def _version(reader: Reader, version: int, what: str) -> None:
    if reader.uint(1) != version:
        raise ProtocolError(f"{what} has another version")


def _read_credentials(reader: Reader) -> bytes:
    """The user's name; the password is not kept."""
    _version(reader, 1, "the credentials")
    username = reader.take(reader.uint(1))
    reader.take(reader.uint(1))
    return username


def read_address(reader: Reader) -> Target:
    """`ATYP ADDR PORT` (RFC 1928 §5)."""
    match reader.uint(1):
        case 1:
            host = str(ipaddress.ip_address(reader.take(4)))
        case 3:
            host = reader.take(reader.uint(1)).decode("utf-8", "backslashreplace")
        case 4:
            host = str(ipaddress.ip_address(reader.take(16)))
        case kind:
            raise ProtocolError(f"unknown address type {kind}")
    return Target(host, reader.uint(2))


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
    is_proxy=True,
    names_hosts=True,
    client_first=b"\x05",
    server_first=b"\x05",
)
