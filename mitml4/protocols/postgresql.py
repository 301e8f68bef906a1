"""PostgreSQL up to the end of its start-up (PostgreSQL documentation, "Frontend/Backend Protocol").

    client                             server
    length 80877103 (SSL)   ───────►
                            ◄───────   S: TLS begins · N: no · E…: an error of an old server
    length 80877104 (GSS)   ───────►
                            ◄───────   G: wrapped in GSSAPI from here on · N: no
    length 3.0 user …       ───────►
                            ◄───────   R (authentication) … S (parameters) … Z (ready)

A client may ask for both before its start-up, and the answer is a single byte. Its side waits from
the request to the answer. After the StartupMessage the client's side passes unread, since it has
the passwords. The server's messages are read up to the parameter that names its version.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    Direction,
    Protocol,
)
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader
from mitml4.protocols.parts.sasl import binds_channel
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Postgresql", "PostgresqlDetails"]

# "Message Formats": the codes take the place of a version that will never exist.
SSL_REQUEST: Final = (80877103).to_bytes(4, "big")
GSS_REQUEST: Final = (80877104).to_bytes(4, "big")
CANCEL_REQUEST: Final = (80877102).to_bytes(4, "big")
VERSIONS: Final = (b"\x00\x03\x00\x00", b"\x00\x03\x00\x02")
"""3.0, and 3.2 of PostgreSQL 18 (3.1 was never used)."""

HEAD: Final = 8
MAX_STARTUP: Final = 10_000
"""The MAX_STARTUP_PACKET_LENGTH of the server."""
MAX_CANCEL: Final = 12 + 256
"""Protocol 3.2 allows a secret of 256 bytes; in 3.0 it has 4."""
MAX_NAME: Final = 63
NAME: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."
"""The bytes in the names of parameters."""
VALUE: Final = PRINTABLE + bytes(range(0x80, 0x100))
MESSAGES: Final = tuple(bytes([byte]) for byte in b"123ABCDEFGHINPQRSTVWXZcdfnpstv")
"""The types of messages."""
MAX_MESSAGE: Final = 1 << 24
AUTHENTICATION: Final = b"R"
AUTHENTICATION_SIZES: Final = {0: 8, 2: 8, 3: 8, 5: 12, 6: 8, 7: 8, 9: 8}
"""Lengths of an AuthenticationRequest by its kind. GSSAPI and SASL have data of any length."""
AUTHENTICATED: Final = 0
SASL: Final = 10
ERROR_RESPONSE: Final = b"E"
QUERY: Final = b"Q"
TELLING: Final = (AUTHENTICATION, ERROR_RESPONSE, QUERY)
MAX_SEVERITY: Final = 40
MAX_PARAMETER: Final = 1024
"""Bytes of a ParameterStatus with the server's version, or of a list of mechanisms."""


def read_head(reader: Reader) -> tuple[int, bytes]:
    """The length and the code of a packet that a client begins with."""
    length = reader.uint(4, HEAD, MAX_STARTUP)
    code = reader.one_of(SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST, *VERSIONS)
    if code in VERSIONS:
        fits = length > HEAD
    elif code == CANCEL_REQUEST:
        fits = 16 <= length <= MAX_CANCEL
    else:
        fits = length == HEAD
    if not fits:
        raise ProtocolError("a start-up packet of a wrong length")
    return length, code


def read_beginning(reader: Reader) -> None:
    """As much as is certain: the eight bytes of a request, or the first parameter with a value.

    Kafka's Metadata requests have the same first eight bytes as a start-up.
    """
    length, code = read_head(reader)
    if code not in VERSIONS:
        return
    parameters = reader.part(length - HEAD)
    value = b""
    while not value:
        if not parameters.until(b"\0", MAX_NAME, NAME):
            raise ProtocolError("a start-up without parameters")
        value = parameters.until(b"\0", MAX_STARTUP, VALUE)


def read_message(reader: Reader) -> tuple[bytes, Reader]:
    """A whole message after the start-up: its type, and the reader of its body."""
    kind = reader.one_of(*MESSAGES)
    return kind, reader.whole(reader.uint(4, 4, MAX_MESSAGE) - 4)


def read_middle(reader: Reader) -> None:
    """Messages of either side, as in a capture that begins in the middle.

    Two messages in a row are enough, or one whose contents say which side sent it.
    """
    if reader.data[reader.at : reader.at + 1] in TELLING:
        _read_telling(reader)
        return
    read_message(reader)
    read_message(reader)


def _read_telling(reader: Reader) -> None:
    """An AuthenticationRequest, an ErrorResponse, or a Query of printable text."""
    kind = reader.one_of(*TELLING)
    length = reader.uint(4, 8 if kind != QUERY else 6, MAX_MESSAGE)
    body = reader.part(length - 4)
    if kind == AUTHENTICATION:
        if length != AUTHENTICATION_SIZES.get(body.uint(4, 0, 12), length):
            raise ProtocolError("an authentication of a wrong length")
        if length > max(AUTHENTICATION_SIZES.values()):
            body.take(1, VALUE)
    elif kind == ERROR_RESPONSE:
        body.one_of(b"S")
        body.until(b"\0", MAX_SEVERITY, VALUE)
        body.one_of(b"V", b"C", b"M")
    else:
        body.take(length - 5, VALUE + b"\t\r\n")
        body.one_of(b"\0")


# The client always speaks first.
detect = single_message(either(read_beginning, read_middle), read_middle)
"""A start-up; or messages of a connection that has begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresqlDetails(Details):
    """From the StartupMessage, and the server's version."""

    user: bytes | None = None
    database: bytes | None = None
    application_name: bytes | None = None
    server_version: bytes | None = None
    encryption: Literal["tls", "gssapi", "refused"] | None = None
    """The answer to the last request of the client; None: there was no request."""
    cancel: bool = False
    """The connection only cancels a query of another one."""
    upgraded: bool = False


@dataclass(slots=True)
class Postgresql(Units):
    """Reads requests and answers, the start-up, and the server's parameters."""

    name: ClassVar[str] = "postgresql"

    parameters: dict[bytes, bytes] | None = None
    """Those of the StartupMessage, by name; None before it."""
    server_version: bytes | None = None
    encryption: Literal["tls", "gssapi", "refused"] | None = None
    cancel: bool = False
    _asked: bytes | None = None

    def client_unit(self, reader: Reader) -> None:
        if reader.data[reader.at] != 0 and self.encryption is None:
            self.stay_plain()  # a message: the start-up was not captured
            return
        length, code = read_head(reader)
        if code in VERSIONS:
            self.parameters = _parameters(reader.take(length - HEAD))
            self.up = FORWARD_ALL
        elif code == CANCEL_REQUEST:
            self.cancel = True
            self.stay_plain()
        else:
            self._asked = code
            self.ask()

    def server_unit(self, reader: Reader) -> None:
        if self._asked:
            self._answer(reader)
        elif self.parameters is None:
            self.stay_plain()  # unasked: an error, or an unknown message
        else:
            self._message(reader)

    def _answer(self, reader: Reader) -> None:
        """One byte decides for both sides."""
        answer, question = reader.take(1), self._asked
        self._asked = None
        if answer == b"S" and question == SSL_REQUEST:
            self.encryption = "tls"
            self.go_inside()
        elif answer == b"N":
            self.encryption = "refused"
            self.answered()
        else:
            self.encryption = "gssapi" if (answer, question) == (b"G", GSS_REQUEST) else None
            self.stay_plain()

    def _message(self, reader: Reader) -> None:
        """`type length …`, up to the version, or to the end of the start-up."""
        kind, length = reader.take(1), reader.uint(4, 4, (1 << 31) - 1)
        if kind in b"ZE":  # ReadyForQuery, ErrorResponse
            self.stay_plain()
        elif kind == AUTHENTICATION and 8 <= length <= MAX_PARAMETER:
            self._authentication(reader.uint(4), reader.take(length - 8))
        elif kind == b"S" and length <= MAX_PARAMETER:
            name, _, value = reader.take(length - 4).partition(b"\0")
            if name == b"server_version":
                self.server_version = value.rstrip(b"\0")
                self.stay_plain()
        else:
            self.skip_body(reader, Direction.DOWN, length - 4)

    def _authentication(self, asked: int, data: bytes) -> None:
        if asked == SASL and binds_channel(data):
            self.channel_binding = True
        elif asked == AUTHENTICATED:
            self.channel_binding = False

    def details(self) -> PostgresqlDetails:
        parameters = self.parameters or {}
        return PostgresqlDetails(
            user=parameters.get(b"user"),
            database=parameters.get(b"database"),
            application_name=parameters.get(b"application_name"),
            server_version=self.server_version,
            encryption=self.encryption,
            cancel=self.cancel,
            upgraded=self.encryption == "tls",
        )


def _parameters(body: bytes) -> dict[bytes, bytes]:
    """`name NUL value NUL …`, ended by an empty name. Returns the three that are reported."""
    texts = body.split(b"\0")
    pairs = zip(texts[::2], texts[1::2], strict=False)
    return {
        name: value for name, value in pairs if name in (b"user", b"database", b"application_name")
    }


PROTOCOL: Final = Protocol(
    name=Postgresql.name,
    detect=detect,
    converse=lambda context: Postgresql(context=context),
    client_first=b"\x00" + b"".join(MESSAGES),
    server_first=b"".join(MESSAGES),
)
