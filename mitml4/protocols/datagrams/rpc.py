"""ONC RPC over UDP (RFC 5531 §9): its first call, and what the port mapper announces.

call     xid 00000000 00000002 program(4) version(4) procedure(4) …
reply    xid 00000001 accepted or denied …
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Direction
from mitml4.protocols.datagram import DatagramConversation, DatagramProtocol
from mitml4.protocols.onc_rpc import (
    CALL,
    MAX_PROCEDURE,
    MAX_VERSION,
    PROGRAM_NUMBERS,
    PROGRAMS,
    REPLIES,
    OncRpc,
    OncRpcDetails,
)
from mitml4.protocols.parts.evidence import either
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.portmap import MAX_RECORDS, Portmap, PortmapDetails, Registrations

__all__ = ["PROTOCOLS", "PortmapDatagrams", "RpcDatagrams"]


def read_call(reader: Reader) -> tuple[int, int]:
    """A call up to its procedure: the program, and its version."""
    reader.take(4)
    reader.one_of(CALL)
    program = reader.uint(4, *PROGRAM_NUMBERS)
    version = reader.uint(4, 0, MAX_VERSION)
    reader.uint(4, 0, MAX_PROCEDURE)
    return program, version


def read_reply(reader: Reader) -> None:
    """An answer, up to its status."""
    reader.take(4)
    reader.one_of(*REPLIES)
    reader.uint(4, 0, 5)


@dataclass(slots=True)
class RpcDatagrams(DatagramConversation):
    """The program of the first call."""

    name: ClassVar[str] = OncRpc.name

    program: int | None = None
    version: int | None = None

    def take(self, direction: Direction, datagram: bytes) -> None:
        if datagram[4:12] != CALL:
            return
        self.program, self.version = read_call(Reader(datagram, end=len(datagram)))
        self.inner = PROGRAMS.get(self.program)
        self.details_ready = self.over = True

    def details(self) -> OncRpcDetails:
        if self.program is None:
            return OncRpcDetails()
        return OncRpcDetails(program=PROGRAMS.get(self.program, self.program), version=self.version)


@dataclass(slots=True)
class PortmapDatagrams(DatagramConversation):
    """The ports in the first answers."""

    name: ClassVar[str] = Portmap.name

    registrations: Registrations = field(default_factory=Registrations)
    _datagrams: int = 0

    def take(self, direction: Direction, datagram: bytes) -> None:
        self.details_ready = True
        self._datagrams += 1
        self.over = self._datagrams >= MAX_RECORDS
        reader = Reader(datagram, end=len(datagram))
        if datagram[4:12] == CALL:
            self.registrations.call(reader)
        else:
            self.announced += self.registrations.reply(reader)

    def details(self) -> PortmapDetails:
        return PortmapDetails(procedure=self.registrations.first)


READ: Final = either(read_call, read_reply)

PROTOCOLS: Final = (
    DatagramProtocol(
        name=RpcDatagrams.name,
        request=READ,
        announced=READ,
        ports=frozenset({111, 2049}),
        converse=lambda context: RpcDatagrams(context=context),
    ),
    DatagramProtocol(name="nfs", request=None),
    DatagramProtocol(
        name=PortmapDatagrams.name,
        request=None,
        converse=lambda context: PortmapDatagrams(context=context),
    ),
)
