"""NATS up to the client's first line (docs.nats.io, "Client Protocol").

    server                                    client
    INFO {"server_id": …, …}  ───────►
                              ◄───────        CONNECT {…}: no TLS
                              ◄───────        16 …: TLS begins, as INFO required or allowed

The server speaks first, in lines, and the client's first byte decides. INFO alone must be enough to
recognise NATS: when the client answers with a ClientHello, that TLS must already be known to be one
layer further in. (A server with `handshake_first` begins with TLS.)
"""

from __future__ import annotations

import json
from typing import Any, ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.fields import PRINTABLE, Reader, evaluate
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Nats", "NatsDetails"]

INFO: Final = b"INFO {"
CONNECT: Final = b"CONNECT {"
HANDSHAKE: Final = b"\x16"
MAX_LINE: Final = 32768
TEXT: Final = PRINTABLE + b"\t\r" + bytes(range(0x80, 0x100))


def read_info(reader: Reader) -> bytes:
    """The server's first line, which has the server's id. Returns its JSON."""
    reader.one_of(INFO)
    line = reader.until(b"\n", MAX_LINE, TEXT)
    if b'"server_id"' not in line:
        raise ProtocolError("an INFO without a server's id")
    return b"{" + line


def read_connect(reader: Reader) -> None:
    """The beginning of the client's first line."""
    reader.one_of(CONNECT)


def detect(opening: Opening) -> Verdict:
    """The server's INFO while the client is silent; or the client's CONNECT.

    By the time a client answers INFO with TLS, INFO has decided.
    """
    client = evaluate(read_connect, opening.up)
    if client is not Verdict.NEED_MORE:
        return client
    server = evaluate(read_info, opening.down)
    if server is Verdict.NEED_MORE and opening.down.startswith(INFO):
        return Verdict.LIKELY
    return Verdict.NEED_MORE if server is Verdict.REJECT and opening.up else server


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsDetails(Details):
    """Names and versions of both sides; user, password and tokens are not kept."""

    server_name: str | None = None
    server_version: str | None = None
    tls_required: bool | None = None
    client: str | None = None
    """The language and version of its library, and its own name if it has one."""
    upgraded: bool = False


@dataclass(slots=True)
class Nats(Units):
    """Reads INFO, and the client's first line or byte."""

    name: ClassVar[str] = "nats"

    server_name: str | None = None
    server_version: str | None = None
    tls_required: bool | None = None
    client: str | None = None
    upgraded: bool = False
    _informed: bool = False

    def __post_init__(self) -> None:
        if self.context.stack[-2:] == (self.name, "tls"):
            self.down = FORWARD_ALL  # INFO came before

    def server_unit(self, reader: Reader) -> None:
        if self._informed:
            reader.until(b"\n", MAX_LINE, None)  # -ERR or PING: the client has not answered
            return
        info = _object(read_info(reader))
        self.server_name = _text(info, "server_name")
        self.server_version = _text(info, "version")
        self.tls_required = info.get("tls_required") is True
        self._informed = True

    def client_unit(self, reader: Reader) -> None:
        if reader.data.startswith(CONNECT[:1], reader.at):
            read_connect(reader)
            options = _object(b"{" + reader.until(b"\n", MAX_LINE, None))
            about = (_text(options, key) for key in ("lang", "version", "name"))
            self.client = " ".join(text for text in about if text) or None
            self.stay_plain()
        elif self._informed and reader.data.startswith(HANDSHAKE, reader.at):
            self.upgraded = True
            self.go_inside()
        else:
            self.stay_plain()

    def details(self) -> NatsDetails:
        return NatsDetails(
            server_name=self.server_name,
            server_version=self.server_version,
            tls_required=self.tls_required,
            client=self.client,
            upgraded=self.upgraded,
        )


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object in a line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("a line with broken JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("a line without a JSON object")
    return value


def _text(value: dict[str, Any], key: str) -> str | None:
    """A text in a JSON object; None if it is missing or no text."""
    text = value.get(key)
    return text if isinstance(text, str) else None


PROTOCOL: Final = Protocol(
    name=Nats.name,
    detect=detect,
    converse=lambda context: Nats(context=context),
    client_first=b"C",
    server_first=b"I",
)
