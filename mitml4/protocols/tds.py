"""TDS, the protocol of Microsoft SQL Server, up to its login ([MS-TDS]).

    client                             server
    12 prelogin, options    ───────►
                            ◄───────   04 the same options, as decided
    12 TLS in packets …     ◄──────►   12 TLS in packets …             if encryption was agreed
    10 login                ───────►                                   in plain text if it was not

If `all` is encrypted, TLS begins for the rest of the connection. Its handshake is carried inside
packets (§2.2.6.5); after it the records stand alone, and the login is in them. With `login only`,
TLS ends after the login without notice, and both sides continue in plain text. That is no inner
layer, so it is reported as `encryption`, and the rest passes. In TDS 8.0 TLS comes first, with ALPN
`tds/8.0`, and this protocol is inside.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    Framing,
    LayerContext,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Tds", "TdsDetails"]

# §2.2.3.1.1: packet types
BATCH: Final = b"\x01"
OLD_LOGIN: Final = b"\x02"
REMOTE_CALL: Final = b"\x03"
RESPONSE: Final = b"\x04"
LOGIN7: Final = b"\x10"
PRELOGIN: Final = b"\x12"

HEAD: Final = 8
WINDOW: Final = slice(7, 8)
"""§2.2.3.1.6: unused, and zero."""
MAX_PACKET: Final = 32767
"""§2.2.3.1.3, which is the limit of the server, too."""
FIRST_PACKETS: Final = 4096
"""§2.2.3.1.3: the size of a packet until the login has agreed on another."""
END_OF_MESSAGE: Final = 1
TLS_HANDSHAKE: Final = b"\x16"  # RFC 8446 §5.1

# §2.2.6.5: option tokens
VERSION: Final = 0
ENCRYPTION: Final = 1
MAX_TOKEN: Final = 15
"""Seven are defined; they come in ascending order."""
TERMINATOR: Final = 0xFF
OPTION: Final = 5

# §2.2.6.5 and §3.3.5.1: what the server's answer means for what follows
LOGIN_ONLY: Final = "login only"
ALL: Final = "all"
ENCRYPTIONS: Final = {0: LOGIN_ONLY, 1: ALL, 2: "none", 3: ALL}
CLIENT_CERTIFICATE: Final = 0x80

# §2.2.6.4
LOGIN_BEGINNING: Final = 4 + 4
"""Length and version."""
LOGIN_HEAD: Final = 36 + 58
"""The fixed fields, and the offset and length of each text."""
MAX_LOGIN: Final = 128 * 1024
USER_AT: Final = 40
MAX_USER: Final = 128
OLD_TEXT: Final = 30
VERSIONS: Final = (
    b"\x00\x00\x00\x70",
    b"\x00\x00\x00\x71",
    b"\x01\x00\x00\x71",
    b"\x02\x00\x09\x72",
    b"\x03\x00\x0a\x73",
    b"\x03\x00\x0b\x73",
    b"\x04\x00\x00\x74",
    b"\x00\x00\x00\x08",
)
"""Versions 7.0 to 8.0, as on the wire."""


def read_packet_head(reader: Reader, kind: bytes) -> int:
    """`type status length spid packet window` (§2.2.3.1); returns the length of what follows.

    The number of the packet is ignored, as servers do: some clients do not begin anew with each
    message.
    """
    reader.one_of(kind)
    reader.one_of(b"\x00", b"\x01")
    length = reader.uint(2, HEAD + OPTION + 1, MAX_PACKET) - HEAD
    reader.take(2 + 1)
    reader.one_of(b"\x00")
    return length


def read_prelogin(reader: Reader, kind: bytes = PRELOGIN) -> dict[int, bytes]:
    """A packet of options, by token: a table of their places, and then their values."""
    length = read_packet_head(reader, kind)
    body, last = reader.part(length), -1
    table: dict[int, tuple[int, int]] = {}
    while (token := body.uint(1)) != TERMINATOR:
        if not (last < token <= MAX_TOKEN) or (last < 0 and token != VERSION):
            raise ProtocolError("options out of order")
        offset, size = body.uint(2, OPTION + 1, length), body.uint(2, 0, length)
        if offset + size > length:
            raise ProtocolError("an option outside its packet")
        table[token], last = (offset, size), token
    if not table:
        raise ProtocolError("a prelogin without a version")
    packet = reader.take(length)
    return {token: packet[offset : offset + size] for token, (offset, size) in table.items()}


def read_login_head(reader: Reader) -> Reader:
    """A login up to its version. Returns the reader of the packet (§2.2.6.4)."""
    length = read_packet_head(reader, LOGIN7)
    packet = reader.part(length)
    if length < LOGIN_HEAD:
        raise ProtocolError("a login without its head")
    packet.uint(4, length, MAX_LOGIN, little=True)
    packet.one_of(*VERSIONS)
    return packet


def read_request(reader: Reader) -> None:
    """A batch or a remote call up to its first header, that of the transaction (§2.2.5.3)."""
    reader.one_of(BATCH, REMOTE_CALL)
    reader.one_of(b"\x00", b"\x01", b"\x08", b"\x09")
    packet = reader.part(reader.uint(2, HEAD + 22, MAX_PACKET) - 4)
    packet.take(2 + 1)
    packet.one_of(b"\x00")
    packet.uint(4, 22, 0x1FF, little=True)
    packet.one_of(b"\x12\x00\x00\x00\x02\x00")


def read_old_login(reader: Reader) -> bytes:
    """The login of Sybase's versions 4.2 and 5.0. Returns the user. ("TDS 5.0", login record.)"""
    reader.one_of(OLD_LOGIN)
    reader.one_of(b"\x00", b"\x01")
    packet = reader.part(reader.uint(2, HEAD + 3 * (OLD_TEXT + 1), MAX_PACKET) - 4)
    packet.one_of(bytes(2))
    packet.take(1)
    packet.one_of(b"\x00")
    _, user, _ = (_old_text(packet) for _ in ("host", "user", "password"))
    return user


def _old_text(packet: Reader) -> bytes:
    """A field of thirty bytes, and a byte with the length of its text."""
    text, size = packet.take(OLD_TEXT), packet.uint(1, 0, OLD_TEXT)
    if text[size:].strip(b"\0"):
        raise ProtocolError("a text that is longer than its length")
    return text[:size]


def read_response(reader: Reader) -> None:
    """A server's prelogin."""
    read_prelogin(reader, RESPONSE)


_certain = single_message(
    either(read_prelogin, read_login_head, read_request, read_old_login, read_response),
    read_response,
)


def detect(opening: Opening) -> Verdict:
    """A client's first packet, as far as only TDS has it; or, in a capture without it, what
    follows."""
    if (opening.up or opening.down)[WINDOW] > b"\0":
        return Verdict.REJECT  # before any parsing: this rules out most of SOCKS4
    return _certain(opening)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdsDetails(Details):
    """`encryption` as negotiated in the prelogin: `none`, `login only` or `all`."""

    server_version: str | None = None
    encryption: str | None = None
    user: bytes | None = None
    """UTF-8; only of a login in plain text. The password is never kept."""


@dataclass(slots=True)
class Packets(Framing):
    """TDS packets around TLS, until a record begins where a packet would.

    The two begin with different bytes: records with 14 to 18, and packets with 12, or 04 from old
    servers.
    """

    _head: bytearray = field(default_factory=bytearray)
    _left: int = 0
    """Bytes of the packet that have not arrived yet."""
    _bare: bool = False

    def unwrap(self, data: bytes | memoryview) -> bytes | memoryview:
        if self._bare:
            return data
        inside, at = bytearray(), 0
        while at < len(data) and not self._bare:
            if self._left:
                content = data[at : at + self._left]
                inside += content
                self._left -= len(content)
                at += len(content)
            elif self._head or data[at] in PRELOGIN + RESPONSE:
                part = data[at : at + HEAD - len(self._head)]
                self._head += part
                at += len(part)
                if len(self._head) == HEAD:
                    self._left = max(0, int.from_bytes(self._head[2:4], "big") - HEAD)
                    self._head.clear()
            else:
                self._bare = True
        return bytes(inside + data[at:])

    def wrap(self, data: bytes) -> bytes:
        most = FIRST_PACKETS - HEAD
        parts = [data[at : at + most] for at in range(0, len(data), most)]
        ends = [0] * (len(parts) - 1) + [END_OF_MESSAGE]
        return b"".join(
            PRELOGIN + bytes([end]) + (HEAD + len(part)).to_bytes(2, "big") + bytes(4) + part
            for part, end in zip(parts, ends, strict=True)
        )


@dataclass(slots=True)
class Tds(Units):
    """Reads the prelogin of both sides, and the user of a login in plain text."""

    name: ClassVar[str] = "tds"

    server_version: str | None = None
    encryption: str | None = None
    user: bytes | None = None
    _asked: bool = False

    def __post_init__(self) -> None:
        self.await_client()

    def client_unit(self, reader: Reader) -> None:
        if reader.data.startswith(LOGIN7, reader.at):
            self.user = _user(reader)
            self.stay_plain()
        elif reader.data.startswith(OLD_LOGIN, reader.at):
            self.user = read_old_login(reader) or None
            self.stay_plain()
        elif self._asked:
            self._go_on(reader)
        elif reader.data.startswith((BATCH, REMOTE_CALL, RESPONSE), reader.at):
            self.stay_plain()  # the login was not captured
        else:
            read_prelogin(reader)
            self._asked = True
            self.await_server()

    def _go_on(self, reader: Reader) -> None:
        """The client's answer to the server's prelogin, unless it is a login."""
        if self.encryption != ALL:
            self.stay_plain()
            return
        hello = reader.part(HEAD + len(TLS_HANDSHAKE))
        hello.one_of(PRELOGIN)
        hello.take(HEAD - len(PRELOGIN))
        hello.one_of(TLS_HANDSHAKE)
        self.inner, self.framing = "tls", Packets
        self.go_inside()

    def server_unit(self, reader: Reader) -> None:
        options = read_prelogin(reader, RESPONSE)
        version = options[VERSION]
        if len(version) == 6:
            build = int.from_bytes(version[2:4], "big")
            self.server_version = f"{version[0]}.{version[1]}.{build}"
        answer = options.get(ENCRYPTION, b"")
        if len(answer) == 1:
            self.encryption = ENCRYPTIONS.get(answer[0] & ~CLIENT_CERTIFICATE)
        self.await_client()
        if self.encryption != ALL:
            self.down = FORWARD_ALL
        if self.encryption == LOGIN_ONLY:
            self.stay_plain()

    def details(self) -> TdsDetails:
        return TdsDetails(
            server_version=self.server_version, encryption=self.encryption, user=self.user
        )


def _user(reader: Reader) -> bytes | None:
    """The user of a login, whose texts are UTF-16, with a table of their places (§2.2.6.4)."""
    packet = read_login_head(reader)
    start = packet.at - LOGIN_BEGINNING
    packet.at = start + USER_AT
    offset, size = packet.uint(2, little=True), packet.uint(2, 0, MAX_USER, little=True)
    packet.at = start + offset
    user = packet.take(2 * size)
    return user.decode("utf-16-le", "replace").encode() or None


def _converse(context: LayerContext) -> Tds:
    return Tds(context=context)


PROTOCOL: Final = Protocol(
    name=Tds.name,
    detect=detect,
    converse=_converse,
    client_first=PRELOGIN + LOGIN7 + BATCH + REMOTE_CALL + OLD_LOGIN + RESPONSE,
    server_first=RESPONSE,
)
