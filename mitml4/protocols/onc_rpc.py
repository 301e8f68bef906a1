"""ONC RPC over TCP (RFC 5531), and two programs over it that are named: NFS and the port mapper
(portmap.py).

    call     80|00 length(3) xid(4) 00000000 00000002 program(4) version(4) procedure(4) …
    reply    80 length(3) xid(4) 00000001 0000000 accepted or denied …

A client often begins with procedure 0, which does nothing (§11.1). So the program is reported with
the first call of another procedure.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Direction, Protocol
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.units import Units

__all__ = [
    "CALL",
    "MAX_PROCEDURE",
    "MAX_VERSION",
    "PROGRAMS",
    "PROGRAM_NUMBERS",
    "PROTOCOLS",
    "REPLIES",
    "OncRpc",
    "OncRpcDetails",
]

LAST_FRAGMENT: Final = b"\x80"
MORE_FRAGMENTS: Final = b"\x00"
"""§11: the first byte of the record mark, since no record has 2^24 bytes."""
CALL_HEAD: Final = 40
"""xid to procedure, and two empty authenticators."""
REPLY_HEAD: Final = 16

CALL: Final = bytes(4) + b"\0\0\0\2"
REPLIES: Final = (b"\0\0\0\1" + bytes(4), b"\0\0\0\1\0\0\0\1")
PROGRAM_NUMBERS: Final = (100000, 0x5FFFFFFF)
"""§8.3: from the port mapper's, the lowest, to the first reserved one."""
MAX_VERSION: Final = 255
MAX_PROCEDURE: Final = 1023

PROGRAMS: Final = {100000: "portmap", 100003: "nfs"}


@dataclass(frozen=True, slots=True)
class Call:
    """The head of a call, and how many bytes of its record follow."""

    program: int
    version: int
    procedure: int
    left: int
    whole: bool
    """Whether the record has no further fragment."""


def read_call(reader: Reader) -> Call:
    """A call in the first fragment of its record."""
    whole = reader.one_of(LAST_FRAGMENT, MORE_FRAGMENTS) == LAST_FRAGMENT
    length = reader.uint(3, CALL_HEAD)
    reader.take(4)
    reader.one_of(CALL)
    return Call(
        program=reader.uint(4, *PROGRAM_NUMBERS),
        version=reader.uint(4, 0, MAX_VERSION),
        procedure=reader.uint(4, 0, MAX_PROCEDURE),
        left=length - 24,
        whole=whole,
    )


def read_reply(reader: Reader) -> None:
    """A reply up to its status."""
    reader.one_of(LAST_FRAGMENT)
    reader.uint(3, REPLY_HEAD)
    reader.take(4)
    reader.one_of(*REPLIES)
    reader.uint(4, 0, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class OncRpcDetails(Details):
    """The first program that was called: its name if known, otherwise its number."""

    program: str | int | None = None
    version: int | None = None


@dataclass(slots=True)
class OncRpc(Units):
    """Reads calls up to the first that is no procedure 0; answers pass."""

    name: ClassVar[str] = "rpc"

    call: Call | None = None

    def client_unit(self, reader: Reader) -> None:
        start = reader.at
        call = read_call(reader)
        self.call = self.call or call
        self.details_ready = True
        if call.procedure == 0 and call.whole:
            self.skip_body(reader, Direction.UP, call.left)
            return
        reader.at = start
        self.inner = PROGRAMS.get(call.program) if call.procedure else None
        if self.inner:
            self.go_inside()
        else:
            self.stay_plain()

    def server_unit(self, reader: Reader) -> None:
        reader.take(reader.left)  # the answer to a call that does nothing

    def details(self) -> OncRpcDetails:
        if self.call is None:
            return OncRpcDetails()
        program = PROGRAMS.get(self.call.program, self.call.program)
        return OncRpcDetails(program=program, version=self.call.version)


PROTOCOLS: Final = (
    Protocol(
        name=OncRpc.name,
        detect=single_message(either(read_call, read_reply), read_reply),
        converse=lambda context: OncRpc(context=context),
        client_first=LAST_FRAGMENT + MORE_FRAGMENTS,
        server_first=LAST_FRAGMENT,
    ),
    Protocol(name="nfs", detect=None),
)
