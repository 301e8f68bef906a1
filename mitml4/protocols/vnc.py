"""VNC's RFB up to its security type, and to the TLS in VeNCrypt (RFC 6143, and its extensions).

    client                              server
                        ◄───────    RFB 003.008\\n
    RFB 003.008\\n       ───────►
                        ◄───────    N types                  3.3: one type, four bytes
    type                ───────►                             18: TLS begins
                        ◄───────    00 02                    19, VeNCrypt: its version
    00 02               ───────►
                        ◄───────    00, N subtypes           four bytes each
    subtype             ───────►                             256: user and password, no TLS
                        ◄───────    01                       257–264: TLS begins

The sides take turns, so the side whose turn it is not is held.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from mitml4.errors import ProtocolError
from mitml4.protocols.conversation import (
    FORWARD_ALL,
    PAUSE,
    PEEK,
    SWITCH,
    Conversation,
    Details,
    Direction,
    Opening,
    Protocol,
    Verdict,
)
from mitml4.protocols.parts.lines import prefix_pattern

__all__ = ["PROTOCOL", "Vnc", "VncDetails"]

TLS: Final = 18
VENCRYPT: Final = 19

# RFC 6143 §8.1.2, and IANA's registry "Remote Framebuffer Security Types"
SECURITY_TYPES: Final = {
    0: "invalid",
    1: "none",
    2: "vnc authentication",
    5: "RA2",
    6: "RA2ne",
    7: "SSPI",
    8: "SSPIne",
    16: "tight",
    17: "ultra",
    TLS: "TLS",
    VENCRYPT: "VeNCrypt",
    20: "SASL",
    21: "MD5",
    22: "xvp",
    30: "Apple Diffie-Hellman",
    129: "RA256",
    130: "RA256ne",
}

# The VeNCrypt specification, version 0.2, and its later registrations
PLAIN: Final = 256
SUBTYPES: Final = {
    PLAIN: "Plain",
    257: "TLSNone",
    258: "TLSVnc",
    259: "TLSPlain",
    260: "X509None",
    261: "X509Vnc",
    262: "X509Plain",
    263: "TLSSASL",
    264: "X509SASL",
}

VERSION_BYTES: Final = 12
_VERSION: Final = re.compile(rb"RFB ([0-9]{3})\.([0-9]{3})\n")
_BEGUN: Final = prefix_pattern(
    *(b"R", b"F", b"B", b" "), *[b"[0-9]"] * 3, rb"\.", *[b"[0-9]"] * 3, b"\n"
)


def detect(opening: Opening) -> Verdict:
    """The client's version is certain; the server's, once the client says nothing else."""
    if opening.up:
        return _version(opening.up)
    server = _version(opening.down)
    if server is not Verdict.MATCH:
        return server
    return Verdict.MATCH if opening.up_ended else Verdict.LIKELY


def _version(data: bytes) -> Verdict:
    if _VERSION.match(data):
        return Verdict.MATCH
    return Verdict.NEED_MORE if _BEGUN.fullmatch(data) else Verdict.REJECT


@dataclass(frozen=True, slots=True, kw_only=True)
class VncDetails(Details):
    """Versions (`3.8`), and the names of the security types that were offered and chosen."""

    server_version: str | None = None
    client_version: str | None = None
    security_offered: tuple[str, ...] | None = None
    security: str | None = None
    vencrypt_subtype: str | None = None
    upgraded: bool = False


@dataclass(slots=True)
class Vnc(Conversation):
    """The handshake, one unit a turn, up to TLS or to an authentication of another kind."""

    name: ClassVar[str] = "vnc"

    server_version: tuple[int, int] | None = None
    client_version: tuple[int, int] | None = None
    offered: tuple[int, ...] | None = None
    security: int | None = None
    subtype: int | None = None
    upgraded: bool = False
    _reader: Callable[[bytes], int] = field(init=False, repr=False)
    """Who reads the next unit, of the side whose turn it is: bytes in, how many it took out."""

    def __post_init__(self) -> None:
        self._await_server(self._servers_version)

    def feed(self, direction: Direction, data: bytes) -> int:
        return self._reader(data)

    def end(self, direction: Direction) -> None:
        """Whoever leaves in mid-handshake, the other's last words still pass."""
        self._pass_all()

    def details(self) -> VncDetails:
        return VncDetails(
            server_version=_dotted(self.server_version),
            client_version=_dotted(self.client_version),
            security_offered=None if self.offered is None else tuple(map(_type, self.offered)),
            security=None if self.security is None else _type(self.security),
            vencrypt_subtype=None if self.subtype is None else _subtype(self.subtype),
            upgraded=self.upgraded,
        )

    def _servers_version(self, data: bytes) -> int:
        """RFC 6143 §7.1.1."""
        self.server_version = _read_version(data)
        if self.server_version is None:
            return 0
        self._await_client(self._clients_version)
        return VERSION_BYTES

    def _clients_version(self, data: bytes) -> int:
        self.client_version = _read_version(data)
        if self.client_version is None:
            return 0
        if self.client_version < (3, 7):
            self._await_server(self._decision)
        elif self.client_version < (4, 0):
            self._await_server(self._offer)
        else:
            self._pass_all()  # RealVNC's own versions
        return VERSION_BYTES

    def _decision(self, data: bytes) -> int:
        """RFC 6143 appendix A: in 3.3 the server decides."""
        if len(data) < 4:
            return 0
        self.security = int.from_bytes(data[:4], "big")
        self._pass_all()
        return 4

    def _offer(self, data: bytes) -> int:
        """RFC 6143 §7.1.2: no types at all are followed by the reason."""
        end = 1 + data[0]
        if len(data) < end:
            return 0
        self.offered = tuple(data[1:end])
        if self.offered:
            self._await_client(self._choice)
        else:
            self._pass_all()
        return end

    def _choice(self, data: bytes) -> int:
        self.security = data[0]
        if self.security == VENCRYPT:
            self._await_server(self._vencrypt_version)
        elif self.security == TLS:
            self._upgrade()
        else:
            self._pass_all()
        return 1

    def _vencrypt_version(self, data: bytes) -> int:
        """VeNCrypt §6.2.19: major and minor."""
        if len(data) < 2:
            return 0
        self._await_client(self._vencrypt_choice)
        return 2

    def _vencrypt_choice(self, data: bytes) -> int:
        """0.0 is a refusal, and 0.1, which numbered its subtypes otherwise, is obsolete."""
        if len(data) < 2:
            return 0
        if data[:2] == b"\x00\x02":
            self._await_server(self._subtypes)
        else:
            self._pass_all()
        return 2

    def _subtypes(self, data: bytes) -> int:
        """VeNCrypt §6.2.19.0.2: an acknowledgement (0), and the subtypes."""
        if data[0] != 0:
            self._pass_all()
            return 1
        if len(data) < 2 or len(data) < 2 + 4 * data[1]:
            return 0
        if data[1]:
            self._await_client(self._subtype_choice)
        else:
            self._pass_all()
        return 2 + 4 * data[1]

    def _subtype_choice(self, data: bytes) -> int:
        if len(data) < 4:
            return 0
        self.subtype = int.from_bytes(data[:4], "big")
        if self.subtype in SUBTYPES and self.subtype != PLAIN:
            self._await_server(self._ready)
        else:
            self._pass_all()
        return 4

    def _ready(self, data: bytes) -> int:
        """1: TLS begins; 0: the server cannot."""
        if data[0] == 1:
            self._upgrade()
        else:
            self._pass_all()
        return 1

    def _await_client(self, reader: Callable[[bytes], int]) -> None:
        self._reader = reader
        self.up, self.down = PEEK, PAUSE

    def _await_server(self, reader: Callable[[bytes], int]) -> None:
        self._reader = reader
        self.up, self.down = PAUSE, PEEK

    def _upgrade(self) -> None:
        self.upgraded = self.details_ready = True
        self.up = self.down = SWITCH

    def _pass_all(self) -> None:
        self.details_ready = True
        self.up = self.down = FORWARD_ALL


def _read_version(data: bytes) -> tuple[int, int] | None:
    """Major and minor of `RFB 003.008\\n`, None as long as it has not come."""
    version = _VERSION.match(data)
    if version is None:
        if _BEGUN.fullmatch(data) is None:
            raise ProtocolError("VNC: not a version")
        return None
    return int(version[1]), int(version[2])


def _dotted(version: tuple[int, int] | None) -> str | None:
    return None if version is None else f"{version[0]}.{version[1]}"


def _type(security: int) -> str:
    return SECURITY_TYPES.get(security, f"unassigned {security}")


def _subtype(subtype: int) -> str:
    return SUBTYPES.get(subtype, f"unassigned {subtype}")


PROTOCOL: Final = Protocol(
    name=Vnc.name,
    detect=detect,
    converse=lambda context: Vnc(context=context),
    client_first=b"R",
    server_first=b"R",
)
