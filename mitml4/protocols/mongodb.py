"""MongoDB's first command (MongoDB documentation, "MongoDB Wire Protocol"; bsonspec.org).

Messages are `length, request id, response to, opcode` of four bytes each, little-endian, and a body
with a BSON document. The first command is `hello` (formerly `isMaster`), in which a driver
identifies itself. TLS, if any, begins before all of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    Details,
    Directive,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import PRINTABLE, Reader, evaluate
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Mongodb", "MongodbDetails"]

HEAD: Final = 16
MAX_MESSAGE: Final = 48_000_000
"""The maxMessageSizeBytes of every server."""
MAX_NAMESPACE: Final = 255
MAX_DOCUMENT: Final = 16384
"""Bytes of the first document; a longer one is not read. `hello` has less than a thousand."""
EMPTY_DOCUMENT: Final = 5

# "Opcodes", and those of versions before 6.0
REPLY: Final = 1
QUERY: Final = 2004
COMPRESSED: Final = 2012
MSG: Final = 2013
ON_A_COLLECTION: Final = (2001, 2002, 2005, 2006)
"""Update, insert, get more, delete: never answered, and rarely first."""

# BSON's types, and the sizes of their values; None: it begins with a length, which counts itself
STRING: Final = 0x02
DOCUMENT: Final = 0x03
SIZES: Final[dict[int, int | None]] = {
    0x01: 8,
    STRING: None,
    DOCUMENT: None,
    0x04: None,
    0x05: None,
    0x06: 0,
    0x07: 12,
    0x08: 1,
    0x09: 8,
    0x0A: 0,
    0x0D: None,
    0x0E: None,
    0x0F: None,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    0x13: 16,
    0x7F: 0,
    0xFF: 0,
}
BESIDE_LENGTH: Final = {STRING: 4, 0x05: 5, 0x0D: 4, 0x0E: 4}
"""Bytes that a length does not count: itself, and the subtype of a binary."""
TYPES: Final = tuple(bytes([kind]) for kind in SIZES)


@dataclass(frozen=True, slots=True)
class Command:
    """The head of a message with a document: the document, and the database if the head names
    it."""

    database: bytes | None
    document: Reader
    size: int
    """Bytes of the document."""
    name: bytes | None = None
    """The name of an old message that is no command, but does the same."""


def read_reply(reader: Reader) -> None:
    """A server's message up to the first element of its document."""
    length = reader.uint(4, HEAD, MAX_MESSAGE, little=True)
    reader.take(4)
    if reader.take(4) == bytes(4):
        raise ProtocolError("a reply without a request")
    opcode = reader.one_of(_REPLY_OPCODE, _MSG_OPCODE)
    body = reader.part(length - HEAD)
    if opcode == _MSG_OPCODE:
        _msg(body)
    else:
        body.uint(4, 0, 0xF, little=True)
        body.take(8)  # the cursor
        body.take(4)
        body.uint(4, 1, 0xFFFF, little=True)
        _document(body)


def read_message(reader: Reader) -> Command | None:
    """A client's message up to the first element of its document; None where none can be read.

    `response to` is 0 in a request, or -1 with some drivers.
    """
    length = reader.uint(4, HEAD, MAX_MESSAGE, little=True)
    reader.take(4)
    reader.one_of(bytes(4), b"\xff" * 4)
    opcode = int.from_bytes(reader.one_of(*_OPCODES), "little")
    return _BODIES[opcode](reader.part(length - HEAD))


def _query(body: Reader) -> Command:
    """`flags namespace skip limit document`."""
    body.uint(4, 0, 0xFF, little=True)
    database, collection = _namespace(body)
    body.take(8)
    name = None if collection == b"$cmd" else b"query"
    return Command(database, *_document(body), name)


def _msg(body: Reader) -> Command:
    """`flags kind document`. Only flags 0, 1 and 16 exist, and a command begins with kind 0."""
    body.uint(2, 0, 3, little=True)
    body.uint(2, 0, 1, little=True)
    body.one_of(b"\x00")
    return Command(None, *_document(body))


def _compressed(body: Reader) -> None:
    """`original opcode, uncompressed size, compressor`."""
    body.one_of(*_OPCODES)
    body.uint(4, 0, MAX_MESSAGE, little=True)
    body.uint(1, 0, 3)


def _on_a_collection(body: Reader) -> None:
    """`zero or flags, namespace`."""
    body.uint(4, 0, 1, little=True)
    _namespace(body)


def _namespace(body: Reader) -> tuple[bytes, bytes]:
    """`database.collection`."""
    database, dot, collection = body.until(b"\0", MAX_NAMESPACE).partition(b".")
    if not (database and dot and collection):
        raise ProtocolError("a collection without a database")
    return database, collection


def _document(body: Reader) -> tuple[Reader, int]:
    """A document whose first element has a name: its reader, after the length, and its size."""
    assert body.end is not None
    size = body.uint(4, EMPTY_DOCUMENT + 2, body.end - body.at, little=True)
    document = body.part(size - 4)
    body.one_of(*TYPES)
    body.take(1, PRINTABLE)
    return document, size


_BODIES: Final[dict[int, Callable[[Reader], Command | None]]] = {
    QUERY: _query,
    MSG: _msg,
    COMPRESSED: _compressed,
    **dict.fromkeys(ON_A_COLLECTION, _on_a_collection),
}
_OPCODES: Final = tuple(opcode.to_bytes(4, "little") for opcode in _BODIES)
_REPLY_OPCODE: Final = REPLY.to_bytes(4, "little")
_OPCODE_LOWS: Final = frozenset({b"", _REPLY_OPCODE[:1], *(opcode[:1] for opcode in _OPCODES)})
_MSG_OPCODE: Final = MSG.to_bytes(4, "little")

_certain = single_message(either(read_message, read_reply), read_reply)


def detect(opening: Opening) -> Verdict:
    """The client's first message; or the server's, in a capture without the client's."""
    data = opening.up or opening.down
    if data[12:13] not in _OPCODE_LOWS or data[14:16] > b"\0\0":
        return Verdict.REJECT  # before any parsing: this rules out TLS and other binary protocols
    return _certain(opening)


@dataclass(frozen=True, slots=True, kw_only=True)
class MongodbDetails(Details):
    """The first command's name, its database, and the client from `hello`."""

    command: bytes | None = None
    database: bytes | None = None
    driver: bytes | None = None
    """Name and version, with a space between."""
    application: bytes | None = None


@dataclass(slots=True)
class Mongodb(Units):
    """Reads the first message; the rest passes."""

    name: ClassVar[str] = "mongodb"

    down: Directive = FORWARD_ALL
    command: bytes | None = None
    database: bytes | None = None
    driver: bytes | None = None
    application: bytes | None = None

    def client_unit(self, reader: Reader) -> None:
        if evaluate(read_message, reader.data) is Verdict.REJECT:
            read_reply(reader)  # the request was not captured
            self.stay_plain()
            return
        command = read_message(reader)
        if command and command.size <= MAX_DOCUMENT:
            self._learn(command)
        self.stay_plain()

    def _learn(self, command: Command) -> None:
        document = _elements(command.document)
        client = _elements_of(document, b"client")
        driver = _elements_of(client, b"driver")
        self.command = command.name or next(iter(document), None)
        self.database = command.database or _text(document, b"$db")
        names = (_text(driver, b"name"), _text(driver, b"version"))
        self.driver = b" ".join(name for name in names if name) or None
        self.application = _text(_elements_of(client, b"application"), b"name")

    def details(self) -> MongodbDetails:
        return MongodbDetails(
            command=self.command,
            database=self.database,
            driver=self.driver,
            application=self.application,
        )


Elements = dict[bytes, tuple[int, Reader]]
"""The elements of a document by name: the type and the reader of each value."""


def _elements(document: Reader) -> Elements:
    """All elements of a document, after its length; nested values are not read."""
    elements: Elements = {}
    while kind := document.uint(1):
        name = document.until(b"\0", MAX_NAMESPACE, None)
        if kind == 0x0B:  # a regular expression: two texts
            document.until(b"\0", MAX_DOCUMENT, None)
            document.until(b"\0", MAX_DOCUMENT, None)
            continue
        if kind not in SIZES:
            raise ProtocolError("an element of an unknown type")
        size = SIZES[kind]
        if size is None:
            size = document.uint(4, EMPTY_DOCUMENT - 4, MAX_DOCUMENT, little=True)
            size += BESIDE_LENGTH.get(kind, 0) - 4
            if size < 0:
                raise ProtocolError("an element of a negative size")
        elements[name] = (kind, document.whole(size))
    return elements


def _elements_of(elements: Elements, name: bytes) -> Elements:
    """The elements of a nested document; none if there is none of this name."""
    kind, value = elements.get(name, (0, Reader(b"")))
    return _elements(value) if kind == DOCUMENT else {}


def _text(elements: Elements, name: bytes) -> bytes | None:
    """A text; None if there is none of this name."""
    kind, value = elements.get(name, (0, Reader(b"")))
    return value.until(b"\0", MAX_DOCUMENT, None) if kind == STRING else None


PROTOCOL: Final = Protocol(
    name=Mongodb.name,
    detect=detect,
    converse=lambda context: Mongodb(context=context),
)
