"""MySQL and MariaDB up to the login (MySQL Internals, "Connection Phase"; MariaDB, "Connection").

    server                                          client
    length 00 0A version …          ───────►                        or an error, and it closes
                                    ◄───────        length 01 login: no TLS
                                    ◄───────        32     01 SSLRequest: TLS, and in it the login

A packet is a length of three bytes, little-endian, a sequence number, and a body. The server speaks
first, and the client's first packet shows whether TLS follows. Inside that TLS the client continues
with sequence number 2, and the server does not greet again.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    LayerContext,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader, evaluate
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Mysql", "MysqlDetails"]

GREETING: Final = b"\x0a"
ERROR: Final = b"\xff"
QUERY: Final = b"\x03"
_WORDS: Final = (
    *(b"select ", b"show ", b"set ", b"insert ", b"update ", b"delete ", b"replace ", b"use "),
    *(b"begin", b"start ", b"commit", b"rollback", b"create ", b"alter ", b"drop ", b"call "),
)
VERBS: Final = (*_WORDS, *map(bytes.upper, _WORDS), *map(bytes.capitalize, _WORDS))
SMALLEST_GREETING: Final = 3 + 8
"""An error has a text."""
MAX_GREETING: Final = 1024
MAX_VERSION: Final = 255
MAX_USER: Final = 255
MAX_LOGIN: Final = 0xFFFF

# Capabilities
CLIENT_PROTOCOL_41: Final = 1 << 9
CLIENT_SSL: Final = 1 << 11

SSL_REQUEST_LENGTH: Final = 32
TEXT: Final = PRINTABLE + bytes(range(0x80, 0x100))


@dataclass(frozen=True, slots=True)
class Greeting:
    """The greeting: the server's version and whether it supports TLS, or the error in its place."""

    version: bytes | None
    tls: bool
    error: bytes | None = None


def read_greeting(reader: Reader) -> Greeting:
    """The server's first packet, HandshakeV10 or ERR_Packet, to its end."""
    length = reader.uint(3, SMALLEST_GREETING, MAX_GREETING, little=True)
    reader.one_of(b"\x00")
    body = reader.part(length)
    if body.one_of(GREETING, ERROR) == ERROR:
        body.uint(2, 1000, 4999, little=True)
        error = body.take(length - 3, TEXT)
        reader.take(length)
        return Greeting(None, False, error)
    version = body.take(1, b"0123456789") + body.until(b"\0", MAX_VERSION)
    body.take(4 + 8)  # thread id, first part of the challenge
    body.one_of(b"\x00")
    capabilities = body.uint(2, little=True)
    reader.take(length)
    return Greeting(version, bool(capabilities & CLIENT_SSL))


def read_login_head(reader: Reader, sequence: bytes) -> tuple[int, int]:
    """The common part of SSLRequest and HandshakeResponse41: length and capabilities."""
    length = reader.uint(3, SSL_REQUEST_LENGTH, MAX_LOGIN, little=True)
    reader.one_of(sequence)
    capabilities = reader.uint(4, little=True)
    if not capabilities & CLIENT_PROTOCOL_41:
        raise ProtocolError("a client older than MySQL 4.1")
    reader.take(4 + 1)  # largest packet, character set
    reader.one_of(bytes(19))
    reader.take(4)  # nothing, or MariaDB's further capabilities
    return length, capabilities


def read_login_answer(reader: Reader) -> None:
    """The server's answer to a login: OK, an error, or a further step of the authentication."""
    reader.uint(3, 1, MAX_GREETING, little=True)
    reader.one_of(b"\x02")
    reader.one_of(b"\x00", b"\x01", b"\xfe", b"\xff")


def read_query(reader: Reader) -> None:
    """A COM_QUERY up to its first word."""
    packet = reader.part(3 + 1 + reader.uint(3, 6, MAX_LOGIN, little=True))
    packet.one_of(b"\x00")
    packet.one_of(QUERY)
    packet.one_of(*VERBS)


def read_result(reader: Reader) -> None:
    """The answer to a query up to its first column: `number of columns`, `catalog …`."""
    reader.one_of(b"\x01\x00\x00\x01")
    reader.uint(1, 1, 250)
    reader.uint(3, 20, MAX_GREETING, little=True)
    reader.one_of(b"\x02\x03def")


_read_middle = either(read_query, read_result)
_middle = single_message(_read_middle, read_result)


def detect(opening: Opening) -> Verdict:
    """A greeting, and the client's answer that fits; inside its TLS the login alone.

    A capture that begins in the middle shows queries, or their results.
    """
    if _behind_ssl_request(opening.stack):
        return evaluate(lambda reader: read_login_head(reader, b"\x02"), opening.up)
    verdict = _greeted(opening)
    return _middle(opening) if verdict is Verdict.REJECT else verdict


def _greeted(opening: Opening) -> Verdict:
    server = evaluate(read_greeting, opening.down)
    client = evaluate(lambda reader: read_login_head(reader, b"\x01"), opening.up)
    if server is Verdict.REJECT and opening.up and client is not Verdict.REJECT:
        answer = evaluate(read_login_answer, opening.down)
        return client if answer is Verdict.MATCH else answer
    if Verdict.REJECT in (server, client):
        return Verdict.REJECT
    if server is Verdict.MATCH:
        certain = client is Verdict.MATCH or (opening.up_ended and not opening.up)
        return Verdict.MATCH if certain else Verdict.LIKELY
    return Verdict.LIKELY if client is Verdict.MATCH else Verdict.NEED_MORE


def _behind_ssl_request(stack: tuple[str, ...]) -> bool:
    return stack[-2:] == ("mysql", "tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlDetails(Details):
    """The server's version, and the user; `error` is the server's reason for a refusal."""

    server_version: bytes | None = None
    tls_offered: bool | None = None
    user: bytes | None = None
    error: bytes | None = None
    upgraded: bool = False


@dataclass(slots=True)
class Mysql(Units):
    """Reads the greeting, and the client's first packet."""

    name: ClassVar[str] = "mysql"

    greeting: Greeting | None = None
    user: bytes | None = None
    upgraded: bool = False

    def __post_init__(self) -> None:
        if _behind_ssl_request(self.context.stack):
            self.down = FORWARD_ALL
        else:
            self.await_server()

    def server_unit(self, reader: Reader) -> None:
        if self.greeting:
            self.stay_plain()  # an error after the greeting, before the client has sent anything
        elif evaluate(read_greeting, reader.data) is Verdict.REJECT:
            reader.take(3)
            reader.one_of(b"\x01", b"\x02")  # an answer: the greeting was not captured
            self.stay_plain()
        else:
            self.greeting = read_greeting(reader)
            if self.greeting.error is not None:
                self.stay_plain()
            else:
                self.answered()

    def client_unit(self, reader: Reader) -> None:
        sequence = b"\x01" if self.greeting else b"\x02"
        length, capabilities = read_login_head(reader, sequence)
        if self.greeting and length == SSL_REQUEST_LENGTH and capabilities & CLIENT_SSL:
            self._upgrade(can=self.greeting.tls)
        else:
            self.user = reader.part(length - SSL_REQUEST_LENGTH).until(b"\0", MAX_USER, None)
            self.stay_plain()

    def _upgrade(self, *, can: bool) -> None:
        self.upgraded = can
        if can:
            self.go_inside()
        else:
            self.stay_plain()

    def details(self) -> MysqlDetails:
        greeting = self.greeting
        return MysqlDetails(
            server_version=greeting.version if greeting else None,
            tls_offered=greeting.tls if greeting and greeting.version else None,
            user=self.user,
            error=greeting.error if greeting else None,
            upgraded=self.upgraded,
        )


def _converse(context: LayerContext) -> Mysql:
    return Mysql(context=context)


PROTOCOL: Final = Protocol(name=Mysql.name, detect=detect, converse=_converse)
