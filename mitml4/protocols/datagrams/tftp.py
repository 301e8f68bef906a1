"""TFTP (RFC 1350): the request, which announces what follows between other ports.

00 01|02 file NUL mode NUL [option NUL value NUL]…            RFC 1350 §5, RFC 2347
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import Details, Direction
from mitml4.protocols.datagram import DatagramConversation, DatagramProtocol, Evidence
from mitml4.protocols.parts.fields import Reader
from mitml4.regex import regex

__all__ = ["PROTOCOL"]

MAX_FILE: Final = 512
MODES: Final = regex(rb"netascii|octet|mail", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TftpDetails(Details):
    """The request: `read` or `write`."""

    operation: str | None = None
    file: bytes | None = None


def read_tftp(reader: Reader) -> TftpDetails:
    """A request; RFC 2347: pairs of options behind the mode."""
    operation = reader.one_of(b"\0\1", b"\0\2")
    file = reader.until(b"\0", MAX_FILE)
    if MODES.fullmatch(reader.until(b"\0", 8)) is None:
        raise ProtocolError("an unknown mode")
    while reader.left:
        reader.until(b"\0", MAX_FILE)
    return TftpDetails(operation="read" if operation == b"\0\1" else "write", file=file)


def read_tftp_data(reader: Reader) -> None:
    """What is said after the request, from another port of the server."""
    reader.uint(2, 3, 6)
    reader.take(1)


@dataclass(slots=True)
class Tftp(DatagramConversation):
    """The request. The answer comes from another port, to the client's."""

    name: ClassVar[str] = "tftp"

    request: TftpDetails = TftpDetails()

    def take(self, direction: Direction, datagram: bytes) -> None:
        self.details_ready = self.over = True
        if datagram[:2] in (b"\0\1", b"\0\2"):
            self.request = read_tftp(Reader(datagram, end=len(datagram)))
            self.is_answered_elsewhere = True

    def details(self) -> TftpDetails:
        return self.request


PROTOCOL: Final = DatagramProtocol(
    name=Tftp.name,
    request=read_tftp,
    announced=read_tftp_data,
    ports=frozenset({69}),
    evidence=Evidence.MAGIC,
    converse=lambda context: Tftp(context=context),
)
