"""RDP up to the choice of its security ([MS-RDPBCGR] §2.2.1.1, §2.2.1.2; X.224 in TPKT, RFC 1006).

    client                                              server
    03 00 len  LI E0 … cookie, 01 .. 08 00 asked  ───►
                                                  ◄───  03 00 len  LI D0 … 02 .. 08 00 chosen

Every choice but 0 (RDP's own encryption) means that TLS begins with the next byte of both sides. So
the client's side waits from its request to the confirm. Inside that TLS the client continues with a
further TPKT or with CredSSP's ASN.1. Both are named `rdp` again.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    Details,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.ber import read_head
from mitml4.protocols.parts.evidence import either, single_message
from mitml4.protocols.parts.fields import Reader, evaluate
from mitml4.protocols.parts.units import Units

__all__ = ["PROTOCOL", "Rdp", "RdpDetails"]

CONNECTION_REQUEST: Final = b"\xe0"
CONNECTION_CONFIRM: Final = b"\xd0"
REQUEST: Final = b"\x01"
RESPONSE: Final = b"\x02"
FAILURE: Final = b"\x03"
NEGOTIATION: Final = 8
"""The length of each of these three, which also contain it."""
FIXED: Final = 6
"""Bytes of an X.224 head after its length: code, two references, class."""
MAX_COOKIE: Final = 240
COOKIE: Final = b"Cookie: "

# §2.2.1.1.1
PROTOCOLS: Final = {
    1: "tls",
    2: "credssp",
    4: "rdstls",
    8: "credssp with early authorization",
    16: "azure ad",
}

CREDSSP: Final = (2, 8)
"""Those whose login proves the key of the server's certificate ([MS-CSSP] §3.1.5, step 3)."""

# §2.2.1.2.2
FAILURES: Final = {
    1: "TLS is required",
    2: "TLS is not allowed",
    3: "no certificate on the server",
    4: "inconsistent flags",
    5: "CredSSP is required",
    6: "TLS with a client certificate is required",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A connection request: its cookie or routing token, and the protocols asked for (0: none)."""

    cookie: bytes | None
    protocols: int


def read_x224(reader: Reader, code: bytes) -> int:
    """`03 00 length LI code …`; returns how many bytes of it follow (RFC 1006 §6, X.224 §13)."""
    reader.one_of(b"\x03\x00")
    length = reader.uint(2, 4 + 1 + FIXED, 4 + 0xFF)
    reader.uint(1, length - 5, length - 5)
    reader.one_of(code)
    reader.take(5)
    return length - 4 - 1 - FIXED


def read_request_head(reader: Reader) -> None:
    """A connection request up to the part that only RDP has: the cookie's start, or the
    negotiation."""
    if read_x224(reader, CONNECTION_REQUEST) < NEGOTIATION:
        raise ProtocolError("a request without a cookie and a negotiation")
    if reader.one_of(COOKIE, REQUEST) == REQUEST:
        reader.take(1)
        reader.uint(2, NEGOTIATION, NEGOTIATION, little=True)
        reader.uint(4, 0, 0x1F, little=True)


def read_bare_request(reader: Reader) -> None:
    """An old connection request without either, up to the MCS that follows it."""
    if read_x224(reader, CONNECTION_REQUEST):
        raise ProtocolError("a request with other contents")
    read_mcs(reader)


def read_mcs(reader: Reader) -> None:
    """MCS's Connect-Initial in an X.224 data unit (§2.2.1.3)."""
    reader.one_of(b"\x03\x00")
    reader.uint(2, 8)
    reader.one_of(b"\x02\xf0\x80\x7f\x65")


def read_request(reader: Reader) -> Request:
    """A whole connection request."""
    body = reader.whole(read_x224(reader, CONNECTION_REQUEST))
    cookie = None
    if body.data.startswith(COOKIE, body.at):
        cookie = body.until(b"\r", MAX_COOKIE).removeprefix(COOKIE)
        body.one_of(b"\n")
    asked = 0
    if body.left >= NEGOTIATION and body.take(1) == REQUEST:
        body.take(3)
        asked = body.uint(4, little=True)
    return Request(cookie, asked)


def read_confirm(reader: Reader) -> None:
    """A connection confirm with an answer to the negotiation."""
    body = reader.part(4 + 1 + FIXED + NEGOTIATION)
    if read_x224(body, CONNECTION_CONFIRM) != NEGOTIATION:
        raise ProtocolError("a confirm without a negotiation")
    body.one_of(RESPONSE, FAILURE)
    body.take(1)
    body.uint(2, NEGOTIATION, NEGOTIATION, little=True)
    body.uint(4, 0, 0x1F, little=True)


def read_inside(reader: Reader) -> None:
    """A client's first unit inside TLS: MCS in an X.224 data unit, or CredSSP's TSRequest
    (§5.4.5.2)."""
    if reader.data[:1] in (b"", b"\x03"):
        read_mcs(reader)
        return
    read_head(reader, b"\x30")
    reader.one_of(b"\xa0\x03\x02\x01")  # [MS-CSSP] §2.2.1: version [0] INTEGER
    reader.uint(1, 2, 6)


def detect(opening: Opening) -> Verdict:
    """A request with a cookie or a negotiation, or what follows a request with neither.

    Any other TPKT belongs to another protocol. A capture without the request shows the confirm.
    """
    if opening.stack[-2:] != (Rdp.name, "tls"):
        return _outermost(opening)
    if opening.down and not opening.up:
        return Verdict.REJECT
    return evaluate(read_inside, opening.up)


_read_requests = either(read_request_head, read_bare_request)
_outermost = single_message(either(_read_requests, read_confirm), read_confirm)


@dataclass(frozen=True, slots=True, kw_only=True)
class RdpDetails(Details):
    """`cookie` is the value of `Cookie: `: `mstshash=` and a part of the user's name, or a
    token."""

    cookie: bytes | None = None
    protocols_offered: tuple[str, ...] | None = None
    protocol: str | None = None
    """What the server chose: `rdp` is RDP's own encryption; or why it refused."""
    upgraded: bool = False


@dataclass(slots=True)
class Rdp(Units):
    """Reads the request and the confirm."""

    name: ClassVar[str] = "rdp"

    request: Request | None = None
    protocol: str | None = None
    upgraded: bool = False

    def __post_init__(self) -> None:
        if self.context.stack[-2:] == (Rdp.name, "tls"):
            self.stay_plain()

    def client_unit(self, reader: Reader) -> None:
        if evaluate(_read_requests, reader.data) is Verdict.REJECT:
            read_confirm(reader)  # the request was not captured
            self.stay_plain()
            return
        self.request = read_request(reader)
        self.ask()

    def server_unit(self, reader: Reader) -> None:
        if self.request is None or not reader.data.startswith(b"\x03"):
            self.stay_plain()
            return
        body = reader.take(read_x224(reader, CONNECTION_CONFIRM))
        kind, value = body[:1], int.from_bytes(body[4:8], "little")
        if kind == RESPONSE and value:
            self.protocol = PROTOCOLS.get(value, f"protocol {value:#x}")
            self.passthrough_reason = "channel binding" if value in CREDSSP else None
            self.upgraded = True
            self.go_inside()
            return
        self.protocol = "rdp"
        if kind == FAILURE:
            self.protocol = f"refused: {FAILURES.get(value, f'failure {value:#x}')}"
        self.stay_plain()

    def details(self) -> RdpDetails:
        request = self.request
        return RdpDetails(
            cookie=request.cookie if request else None,
            protocols_offered=_names(request.protocols) if request else None,
            protocol=self.protocol,
            upgraded=self.upgraded,
        )


def _names(protocols: int) -> tuple[str, ...]:
    return tuple(name for bit, name in PROTOCOLS.items() if protocols & bit)


PROTOCOL: Final = Protocol(
    name=Rdp.name,
    detect=detect,
    converse=lambda context: Rdp(context=context),
    client_first=b"\x030",
    server_first=b"\x03",
)
