"""AMQP's protocol headers, and how a server of 0-9-1 identifies itself.

    client                            server
    AMQP 2 1 0 0            ───────►
                            ◄───────  AMQP 2 1 0 0: TLS begins (1.0 §5.2); else it does not
    AMQP 3 1 0 0            ───────►  SASL (1.0 §5.3), and then AMQP 0 1 0 0
    AMQP 0 0 9 1            ───────►
                            ◄───────  01 0000 len 000a000a 0 9 table …: connection.start

After its header for TLS the client's side waits for the server's header. A capture that begins in
the middle shows frames: those of 0-9-1 end in CE, those of 1.0 begin with a described list.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    Protocol,
)
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Amqp", "AmqpDetails"]

TLS: Final = b"AMQP\x02\x01\x00\x00"
HEADERS: Final = {
    b"AMQP\x01\x01\x08\x00": "0-8",
    b"AMQP\x01\x01\x00\x09": "0-9",
    b"AMQP\x00\x00\x09\x00": "0-9",
    b"AMQP\x00\x00\x09\x01": "0-9-1",
    b"AMQP\x01\x01\x00\x0a": "0-10",
    b"AMQP\x00\x01\x00\x00": "1.0",
    TLS: "1.0, TLS",
    b"AMQP\x03\x01\x00\x00": "1.0, SASL",
}
HEADER: Final = 8

# 0-9-1 §2.3.5
METHOD: Final = b"\x01"
FRAME_END: Final = b"\xce"
CLASSES: Final = tuple(bytes((0, number)) for number in (10, 20, 40, 50, 60, 85, 90))
MAX_METHOD: Final = 131
MAX_CHANNEL: Final = 2047
"""RabbitMQ's default."""
MAX_FRAME: Final = 131072
CONNECTION_START: Final = b"\x00\x0a\x00\x0a"

MAX_TABLE: Final = 8192
SIZES: Final = {
    b"t": 1,
    b"b": 1,
    b"B": 1,
    b"s": 2,
    b"u": 2,
    b"I": 4,
    b"i": 4,
    b"f": 4,
    b"l": 8,
    b"L": 8,
    b"d": 8,
    b"D": 5,
    b"T": 8,
    b"V": 0,
}
LONG: Final = (b"S", b"F", b"A", b"x")
"""0-9-1 §4.2.1, with RabbitMQ's errata: a length of four bytes, and so many bytes."""


# 1.0 §2.3.1, §1.6.22, §2.7 and §5.3.3
DATA_OFFSET: Final = b"\x02"
DESCRIBED: Final = b"\x00\x53"
PERFORMATIVES: Final = tuple(bytes([number]) for number in (*range(0x10, 0x19), *range(0x40, 0x45)))
LISTS: Final = (b"\x45", b"\xc0", b"\xd0")
MAX_FRAME_1_0: Final = 1 << 20


def read_beginning(reader: Reader) -> bytes | None:
    """A header; None for a frame in the middle of a connection."""
    first = reader.data[reader.at : reader.at + 1]
    if first == b"\0":
        _read_frame_1_0(reader)
        return None
    if first != METHOD:
        return reader.one_of(*HEADERS)
    reader.one_of(METHOD)
    reader.uint(2, 0, MAX_CHANNEL)
    size = reader.uint(4, 4, MAX_FRAME)
    body = reader.part(size)
    body.one_of(*CLASSES)
    body.uint(2, 10, MAX_METHOD)
    reader.take(size)
    reader.one_of(FRAME_END)
    return None


def _read_frame_1_0(reader: Reader) -> None:
    """`size, offset, type, channel`, a performative, and its list of fields (1.0 §2.3)."""
    reader.uint(4, HEADER + 4, MAX_FRAME_1_0)
    reader.one_of(DATA_OFFSET)
    reader.one_of(b"\0", b"\1")  # AMQP, SASL
    reader.take(2)
    reader.one_of(DESCRIBED)
    reader.one_of(*PERFORMATIVES)
    reader.one_of(*LISTS)


detect = single_message(read_beginning, read_beginning)
"""The client's header; or, in a capture that begins midway, a frame of either side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpDetails(Details):
    """`version` from the client's header; the server's name and version (0-9-1)."""

    version: str | None = None
    server_version: str | None = None
    """In the server's answer, if that is a header."""
    product: bytes | None = None
    product_version: bytes | None = None
    upgraded: bool = False


@dataclass(slots=True)
class Amqp(Units):
    """Reads the client's header and the server's answer; the rest passes."""

    name: ClassVar[str] = "amqp"

    version: str | None = None
    server_version: str | None = None
    product: bytes | None = None
    product_version: bytes | None = None
    upgraded: bool = False

    def client_unit(self, reader: Reader) -> None:
        header = read_beginning(reader)
        if header is None:
            self.stay_plain()
            return
        self.version = HEADERS[header]
        if header == TLS:
            self.ask()
        else:
            self.up = FORWARD_ALL

    def server_unit(self, reader: Reader) -> None:
        if self.version is None:
            self.stay_plain()
        elif reader.data.startswith(METHOD, reader.at):
            self._start(reader)
            self.stay_plain()
        else:
            header = reader.one_of(*HEADERS)
            self.server_version = HEADERS[header]
            self.upgraded = header == TLS and self.version == HEADERS[TLS]
            if self.upgraded:
                self.go_inside()
            else:
                self.stay_plain()

    def _start(self, reader: Reader) -> None:
        """`version-major version-minor server-properties` (0-9-1 §1.4.2.1)."""
        reader.one_of(METHOD)
        reader.take(2)
        body = reader.part(reader.uint(4, 4, MAX_FRAME))
        if body.take(4) == CONNECTION_START:
            body.take(2)
            properties = _table(body)
            self.product = properties.get(b"product")
            self.product_version = properties.get(b"version")

    def details(self) -> AmqpDetails:
        return AmqpDetails(
            version=self.version,
            server_version=self.server_version,
            product=self.product,
            product_version=self.product_version,
            upgraded=self.upgraded,
        )


def _table(reader: Reader) -> dict[bytes, bytes]:
    """The texts of a table; other values are skipped, nested tables too (0-9-1 §4.2.1)."""
    size = reader.uint(4, 0, MAX_TABLE)
    table = reader.whole(size)
    texts: dict[bytes, bytes] = {}
    while table.left:
        name = table.take(table.uint(1), PRINTABLE)
        kind = table.one_of(*SIZES, *LONG)
        value = table.take(table.uint(4) if kind in LONG else SIZES[kind])
        if kind == b"S":
            texts[name] = value
    return texts


PROTOCOL: Final = Protocol(
    name=Amqp.name,
    detect=detect,
    converse=lambda context: Amqp(context=context),
    client_first=b"A\0" + METHOD,
    server_first=b"A\0" + METHOD,
)
