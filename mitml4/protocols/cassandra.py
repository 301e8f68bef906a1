"""Cassandra's native protocol, versions 3 to 5 (CQL binary protocol specification).

DataStax Enterprise counts its own versions from 65, and its Python driver tries those first. Frames
are `version flags stream opcode length` (nine bytes) and a body. A client begins with OPTIONS,
which is empty, or with STARTUP, which identifies it. Up to STARTUP all versions use the same
frames. TLS, if any, begins before all of this.
"""

from __future__ import annotations

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
from mitml4.protocols.parts.evidence import request_response, single_message
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Cassandra", "CassandraDetails"]

VERSIONS: Final = (b"\x03", b"\x04", b"\x05", b"\x41", b"\x42")
ANSWERS: Final = (b"\x81", b"\x82", b"\x83", b"\x84", b"\x85", b"\xc1", b"\xc2")
"""A server that does not support the client's version answers in its own."""
FLAGS: Final = (b"\x00", b"\x02", b"\x10")
"""§2.2: none, tracing, beta. Nothing is compressed before STARTUP."""
ERROR: Final = b"\x00"
STARTUP: Final = b"\x01"
OPTIONS: Final = b"\x05"
SUPPORTED: Final = b"\x06"
MAX_STARTUP: Final = 4096
NAME: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_"


@dataclass(frozen=True, slots=True)
class Frame:
    """A client's frame: version, opcode and body, which is still unread."""

    version: int
    opcode: bytes
    body: Reader
    length: int


def read_frame(reader: Reader) -> Frame:
    """The head of a frame; of STARTUP also the first name."""
    version = reader.one_of(*VERSIONS)
    reader.one_of(*FLAGS)
    reader.uint(2, 0, 0x7FFF)
    opcode = reader.one_of(STARTUP, OPTIONS)
    if opcode == OPTIONS:
        reader.uint(4, 0, 0)
        return Frame(version[0], opcode, reader.part(0), 0)
    length = reader.uint(4, 8, MAX_STARTUP)
    body = reader.part(length)
    first = reader.part(length)
    first.uint(2, 1, 64)
    first.take(first.uint(2, 4, 64), NAME)
    return Frame(version[0], opcode, body, length)


def read_answer(reader: Reader) -> bytes:
    """The head of an answer to OPTIONS, up to its opcode."""
    reader.one_of(*ANSWERS)
    reader.one_of(*FLAGS)
    reader.take(2)
    return reader.one_of(ERROR, SUPPORTED)


def read_supported(reader: Reader) -> None:
    """An answer to OPTIONS that is no error: names, each with a list of possible values."""
    if read_answer(reader) != SUPPORTED:
        raise ProtocolError("an answer to another request")
    body = reader.part(reader.uint(4, 8, MAX_STARTUP))
    body.uint(2, 1, 64)
    body.take(body.uint(2, 4, 64), NAME)


def _read_first(reader: Reader) -> None:
    """The first unit of the client's side: a frame or, in a capture, the answer to one."""
    if reader.data[:1] in ANSWERS:
        read_supported(reader)
    else:
        read_frame(reader)


_by_answer = request_response(read_frame, lambda _: read_answer)
_certain = single_message(_read_first, read_supported)


def detect(opening: Opening) -> Verdict:
    """A frame of the client's; or, in a capture without those, the server's first frame.

    OPTIONS needs its answer, or a second frame: an array of small numbers, and RTMP, can begin with
    the same nine bytes.
    """
    if (opening.up or opening.down)[1:2] not in (b"", *FLAGS):
        return Verdict.REJECT  # before any parsing: this rules out SOCKS
    verdict = _certain(opening)
    if verdict is not Verdict.MATCH or opening.up[4:5] != OPTIONS:
        return verdict
    verdict = _by_answer(opening)
    return Verdict.REJECT if verdict is Verdict.LIKELY and opening.down_ended else verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CassandraDetails(Details):
    """The protocol's version (65 and 66 are DSE's 1 and 2), and values from STARTUP."""

    version: int | None = None
    cql_version: bytes | None = None
    driver: bytes | None = None
    """Name and version, with a space between."""


@dataclass(slots=True)
class Cassandra(Units):
    """Reads the client's frames up to STARTUP; the rest passes."""

    name: ClassVar[str] = "cassandra"

    down: Directive = FORWARD_ALL
    version: int | None = None
    cql_version: bytes | None = None
    driver: bytes | None = None

    def client_unit(self, reader: Reader) -> None:
        if reader.data[reader.at : reader.at + 1] not in VERSIONS:
            self.stay_plain()
            return
        frame = read_frame(reader)
        if frame.opcode == STARTUP:
            options = _string_map(frame.body)
            self.cql_version = options.get(b"CQL_VERSION")
            names = (options.get(b"DRIVER_NAME"), options.get(b"DRIVER_VERSION"))
            self.driver = b" ".join(name for name in names if name) or None
            self.stay_plain()
        self.version = frame.version

    def details(self) -> CassandraDetails:
        return CassandraDetails(
            version=self.version, cql_version=self.cql_version, driver=self.driver
        )


def _string_map(reader: Reader) -> dict[bytes, bytes]:
    """`[string map]` (§3): a count, then names and values, each with a length of two bytes."""
    return {_string(reader): _string(reader) for _ in range(reader.uint(2, 1, 64))}


def _string(reader: Reader) -> bytes:
    return reader.take(reader.uint(2))


PROTOCOL: Final = Protocol(
    name=Cassandra.name,
    detect=detect,
    converse=lambda context: Cassandra(context=context),
    client_first=b"".join(VERSIONS + ANSWERS),
    server_first=b"".join(ANSWERS),
)
