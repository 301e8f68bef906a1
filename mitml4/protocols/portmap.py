"""The port mapper (RFC 1833): which ports the programs of ONC RPC have, in its answers.

    call     xid 00000000 00000002 000186a0 version(4) procedure(4) credential verifier arguments
    reply    xid 00000001 00000000 verifier 00000000 result

    procedure       arguments                                result
    GETPORT (v2)    program version protocol 0               port
    DUMP (v2)                                                1 program version protocol port … 0
    GETADDR         program version netid address owner      address
    DUMP (v3, v4)                                            1 program … owner … 0

An address is text, whose last two numbers are the bytes of the port. What is asked for next goes to
one of these ports, so they are announced.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Protocol
from mitml4.protocols.expected import Announcement, Transport
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.units import Units
from mitml4.regex import regex

__all__ = ["PROTOCOL", "Portmap", "PortmapDetails", "Registrations"]

PROGRAM: Final = 100000
GETPORT, DUMP = 3, 4
"""Of all versions; in 3 and 4, the first is GETADDR."""
NAMES: Final = {
    (False, GETPORT): "getport", (True, GETPORT): "getaddr", (False, DUMP): "dump",
    (True, DUMP): "dump",
}  # fmt: skip
TRANSPORTS: Final[dict[int, Transport]] = {6: "tcp", 17: "udp"}
NETIDS: Final[dict[bytes, Transport]] = {
    b"tcp": "tcp", b"tcp6": "tcp", b"udp": "udp", b"udp6": "udp",
}  # fmt: skip
_PORT: Final = regex(rb".*\.([0-9]{1,3})\.([0-9]{1,3})")

MAX_OPAQUE: Final = 1024
MAX_WAITING: Final = 16
"""Calls that are not answered."""
MAX_LISTED: Final = 256
MAX_RECORD: Final = 16384
MAX_RECORDS: Final = 128
"""Of both sides, after which the rest passes unread."""
LAST_FRAGMENT: Final = b"\x80"


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked of the port mapper."""

    version: int
    procedure: int
    transport: Transport | None
    """Of the program that is asked for."""


class Registrations:
    """Reads calls, and in their answers the ports of programs."""

    __slots__ = ("_waiting", "first")

    def __init__(self) -> None:
        self.first: str | int | None = None
        """The procedure that was called first."""
        self._waiting: dict[bytes, Call] = {}

    def call(self, reader: Reader) -> None:
        """A call, from its xid on. Raises ProtocolError, or Short, where it is none."""
        xid = reader.take(4)
        reader.one_of(bytes(4) + b"\0\0\0\2" + PROGRAM.to_bytes(4, "big"))
        version, procedure = reader.uint(4, 2, 4), reader.uint(4, 0, 15)
        if self.first is None:
            self.first = NAMES.get((version > 2, procedure), procedure)
        if procedure not in (GETPORT, DUMP):
            return
        for _ in ("credential", "verifier"):
            reader.take(4)
            _opaque(reader)
        transport = _asked_for(reader, version) if procedure == GETPORT else None
        if len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[xid] = Call(version, procedure, transport)

    def reply(self, reader: Reader) -> list[Announcement]:
        """What the answer to one of the calls announces."""
        call = self._waiting.pop(reader.take(4), None)
        if call is None:
            return []
        reader.one_of(b"\0\0\0\1" + bytes(4))
        reader.take(4)
        _opaque(reader)
        reader.one_of(bytes(4))
        if call.procedure == DUMP:
            found = _listed(reader, call.version)
        elif call.version == 2:
            found = [(call.transport, reader.uint(4, 0, 0xFFFF))]
        else:
            found = [(call.transport, _port_of(_opaque(reader)))]
        unique = dict.fromkeys((transport, port) for transport, port in found if transport and port)
        return [
            Announcement(protocol="rpc", transport=transport, port=port)
            for transport, port in unique
        ]


def _asked_for(reader: Reader, version: int) -> Transport | None:
    reader.take(8)
    return TRANSPORTS.get(reader.uint(4)) if version == 2 else NETIDS.get(_opaque(reader))


def _listed(reader: Reader, version: int) -> list[tuple[Transport | None, int]]:
    """A list, in which each item is preceded by a 1, and whose end is a 0."""
    found: list[tuple[Transport | None, int]] = []
    while reader.uint(4, 0, 1) and len(found) < MAX_LISTED:
        transport = _asked_for(reader, version)
        if version == 2:
            found.append((transport, reader.uint(4, 0, 0xFFFF)))
        else:
            found.append((transport, _port_of(_opaque(reader))))
            _opaque(reader)  # the owner
    return found


def _port_of(address: bytes) -> int:
    """RFC 5665 §5.2.3.3; 0 if there is none."""
    last = _PORT.fullmatch(address)
    return (int(last[1]) << 8 | int(last[2])) & 0xFFFF if last else 0


def _opaque(reader: Reader) -> bytes:
    """RFC 4506 §4.10: a length, and bytes that are padded to four."""
    length = reader.uint(4, 0, MAX_OPAQUE)
    data = reader.take(length)
    reader.take(-length % 4)
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class PortmapDetails(Details):
    """What was asked first: `getport`, `getaddr`, `dump`, or another procedure by its number."""

    procedure: str | int | None = None


@dataclass(slots=True)
class Portmap(Units):
    """Reads the first records of both sides, over TCP."""

    name: ClassVar[str] = "portmap"

    registrations: Registrations = field(default_factory=Registrations)
    _records: int = 0

    def client_unit(self, reader: Reader) -> None:
        if record := self._record(reader):
            self.registrations.call(record)
            self.details_ready = True

    def server_unit(self, reader: Reader) -> None:
        if record := self._record(reader):
            self.announced += self.registrations.reply(record)

    def _record(self, reader: Reader) -> Reader | None:
        """The next record, if it is one fragment (RFC 5531 §11). Else the rest passes unread."""
        kind, length = reader.take(1), reader.uint(3)
        if kind != LAST_FRAGMENT or length > MAX_RECORD or self._records >= MAX_RECORDS:
            self.stay_plain()
            return None
        record = reader.whole(length)
        self._records += 1
        return record

    def details(self) -> PortmapDetails:
        return PortmapDetails(procedure=self.registrations.first)


PROTOCOL: Final = Protocol(
    name=Portmap.name, detect=None, converse=lambda context: Portmap(context=context)
)
