"""SMB, up to the first remote procedure call inside it; and NetBIOS sessions without SMB.

    smb            00 length(3) FF|FE|FD|FC "SMB" …               MS-SMB §2.1, MS-SMB2 §2.1
    netbios-ssn    81 00 00 44, the called and the calling name   RFC 1002 §4.3.2

On port 139 a NetBIOS session request comes before the first SMB message. A session with another
protocol inside is a `netbios-ssn`.

DCE/RPC is carried in writes to a named pipe. Its clients bind within their first few messages, so
only these are read. The rest of the flow, and of every long message, passes.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Direction, Opening, Protocol, Verdict
from mitml4.protocols.named.windows import read_pdu
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader, evaluate
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOLS", "Smb", "SmbDetails"]

SMB1: Final = b"\xffSMB"
SMB2: Final = b"\xfeSMB"
SMB_SIGNATURES: Final = (SMB1, SMB2, b"\xfdSMB", b"\xfcSMB")
"""The last two begin encrypted and compressed messages of version 3."""
MIN_SMB: Final = 32

SESSION_MESSAGE: Final = b"\x00"
SESSION_REQUEST: Final = b"\x81\x00\x00\x44"
SESSION_GRANTED: Final = b"\x82\x00\x00\x00"
ENCODED: Final = bytes(range(ord("A"), ord("Q")))
"""RFC 1001 §14.1: each letter encodes half a byte of the name."""


def read_message(reader: Reader) -> None:
    """The head of an SMB message."""
    reader.one_of(SESSION_MESSAGE)
    reader.uint(3, MIN_SMB)
    reader.one_of(*SMB_SIGNATURES)


def read_session_request(reader: Reader) -> None:
    """Two encoded names of sixteen bytes, without a scope."""
    reader.one_of(SESSION_REQUEST)
    for _ in ("called", "calling"):
        reader.one_of(b"\x20")
        reader.take(32, ENCODED)
        reader.one_of(b"\0")


def read_smb(reader: Reader) -> None:
    """The client's first SMB message, with or without a session request before it."""
    if reader.data.startswith(SESSION_REQUEST[:1]):
        read_session_request(reader)
    read_message(reader)


def read_smb_reply(reader: Reader) -> None:
    """The server's first SMB message, with or without the answer to a session request."""
    if reader.data.startswith(SESSION_GRANTED[:1]):
        reader.one_of(SESSION_GRANTED)
    read_message(reader)


def detect_netbios_ssn(opening: Opening) -> Verdict:
    """A session request that no SMB message follows."""
    if opening.down and not opening.up:
        return Verdict.REJECT
    request = evaluate(read_session_request, opening.up)
    if request is not Verdict.MATCH:
        return request
    match evaluate(read_smb, opening.up):
        case Verdict.MATCH:
            return Verdict.REJECT
        case Verdict.REJECT:
            return Verdict.MATCH
    return Verdict.MATCH if opening.up_ended else Verdict.LIKELY


PACKETS: Final = (SESSION_MESSAGE, b"\x81", b"\x82", b"\x83", b"\x84", b"\x85")
"""RFC 1002 §4.3.1: session message, request, responses, and the keep-alive."""
MAX_LOOKED_INTO: Final = 32
"""Messages of the client; in our captures none needed more than nine to bind."""
HEAD: Final = 160
"""Bytes of a message that hold the beginning of the written data, if it is as short as a bind."""

# MS-SMB2 §2.2.1.2
SMB2_HEADER: Final = 64
SMB2_COMMAND: Final = slice(12, 14)
NEGOTIATE: Final = 0
DIALECT: Final = slice(SMB2_HEADER + 4, SMB2_HEADER + 6)
DIALECTS: Final = {0x0202: "2.0.2", 0x0210: "2.1", 0x0300: "3.0", 0x0302: "3.0.2", 0x0311: "3.1.1"}

SMB1_COMMAND: Final = slice(4, 5)
SMB1_DATA: Final = {
    0x25: slice(57, 59),  # transaction (MS-CIFS §2.2.4.33.1)
    0x2F: slice(55, 57),  # write and-x (§2.2.4.43.1)
}
SMB2_DATA: Final = {
    0x09: slice(SMB2_HEADER + 2, SMB2_HEADER + 4),  # write (MS-SMB2 §2.2.21)
    0x0B: slice(SMB2_HEADER + 24, SMB2_HEADER + 28),  # ioctl (§2.2.31)
}
"""Where a message of this command has the offset of its data, from the start of the header."""
BIND: Final = b"\x05\x00\x0b"


def binds(message: bytes) -> bool:
    """Whether an SMB message writes the bind of a DCE/RPC client. `message` is its head."""
    if message.startswith(SMB1):
        offset = SMB1_DATA.get(int.from_bytes(message[SMB1_COMMAND]))
    elif message.startswith(SMB2):
        offset = SMB2_DATA.get(int.from_bytes(message[SMB2_COMMAND], "little"))
    else:
        return False
    if offset is None:
        return False
    data = message[int.from_bytes(message[offset], "little") :]
    return data.startswith(BIND) and evaluate(read_pdu, data) is Verdict.MATCH


def dialect_of(message: bytes) -> str | None:
    """The dialect that a server's message chooses; None: it chooses none."""
    if message.startswith(SMB1):
        return "1"
    if not message.startswith(SMB2):
        return None
    if int.from_bytes(message[SMB2_COMMAND], "little") != NEGOTIATE:
        return None
    return DIALECTS.get(int.from_bytes(message[DIALECT], "little"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SmbDetails(Details):
    """The dialect that the server chose."""

    dialect: str | None = None


@dataclass(slots=True)
class Smb(Units):
    """Reads the heads of the first messages."""

    name: ClassVar[str] = "smb"

    dialect: str | None = None
    _left: int = MAX_LOOKED_INTO

    def client_unit(self, reader: Reader) -> None:
        start = reader.at
        message, rest = read_head(reader)
        self._left -= 1
        if binds(message):
            reader.at = start
            self.inner = "dcerpc"
            self.go_inside()
        elif self._left:
            self.skip_body(reader, Direction.UP, rest)
        else:
            self.stay_plain()

    def server_unit(self, reader: Reader) -> None:
        message, rest = read_head(reader)
        self.dialect = self.dialect or dialect_of(message)
        self.details_ready = self.details_ready or self.dialect is not None
        self.skip_body(reader, Direction.DOWN, rest)

    def details(self) -> SmbDetails:
        return SmbDetails(dialect=self.dialect)


def read_head(reader: Reader) -> tuple[bytes, int]:
    """The first bytes of a packet, after its length, and how many more it has."""
    reader.one_of(*PACKETS)
    length = reader.uint(3)
    head = reader.take(min(length, HEAD))
    return head, length - len(head)


PROTOCOLS: Final = (
    Protocol(
        name=Smb.name,
        detect=single_message(read_smb, read_smb_reply),
        converse=lambda context: Smb(context=context),
        client_first=SESSION_MESSAGE + SESSION_REQUEST[:1],
        server_first=SESSION_MESSAGE + SESSION_GRANTED[:1],
    ),
    Protocol(
        name="netbios-ssn",
        detect=detect_netbios_ssn,
        client_first=SESSION_REQUEST[:1],
        server_first=b"",
    ),
)
