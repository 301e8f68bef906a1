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

The sides take turns, so the side whose turn it is not waits.
"""

from __future__ import annotations

from typing import ClassVar, Final

from mitml4.dataclass import dataclass
from mitml4.protocols.conversation import Details, Protocol
from mitml4.protocols.parts.evidence import single_message
from mitml4.protocols.parts.fields import Reader
from mitml4.protocols.parts.turns import Turns

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

DIGITS: Final = b"0123456789"


def read_version(reader: Reader) -> tuple[int, int]:
    """Major and minor of `RFB 003.008\\n` (RFC 6143 §7.1.1)."""
    reader.one_of(b"RFB ")
    major = reader.take(3, DIGITS)
    reader.one_of(b".")
    minor = reader.take(3, DIGITS)
    reader.one_of(b"\n")
    return int(major), int(minor)


detect = single_message(read_version, read_version)
"""The client's version is certain; the server's is LIKELY while the client is silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VncDetails(Details):
    """Versions (`3.8`), and the names of the offered and chosen security types."""

    server_version: str | None = None
    client_version: str | None = None
    security_offered: tuple[str, ...] | None = None
    security: str | None = None
    vencrypt_subtype: str | None = None
    upgraded: bool = False


@dataclass(slots=True)
class Vnc(Turns):
    """Reads the handshake, up to TLS or to an authentication of another kind."""

    name: ClassVar[str] = "vnc"

    server_version: tuple[int, int] | None = None
    client_version: tuple[int, int] | None = None
    offered: tuple[int, ...] | None = None
    security: int | None = None
    subtype: int | None = None
    upgraded: bool = False

    def __post_init__(self) -> None:
        self.server_next(self._servers_version)

    def details(self) -> VncDetails:
        return VncDetails(
            server_version=_dotted(self.server_version),
            client_version=_dotted(self.client_version),
            security_offered=None if self.offered is None else tuple(map(_type, self.offered)),
            security=None if self.security is None else _type(self.security),
            vencrypt_subtype=None if self.subtype is None else _subtype(self.subtype),
            upgraded=self.upgraded,
        )

    def _servers_version(self, reader: Reader) -> None:
        self.server_version = read_version(reader)
        self.client_next(self._clients_version)

    def _clients_version(self, reader: Reader) -> None:
        self.client_version = read_version(reader)
        if self.client_version < (3, 7):
            self.server_next(self._decision)
        elif self.client_version < (4, 0):
            self.server_next(self._offer)
        else:
            self.stay_plain()  # RealVNC's own versions

    def _decision(self, reader: Reader) -> None:
        """RFC 6143 appendix A: in 3.3 the server decides."""
        self.security = reader.uint(4)
        self.stay_plain()

    def _offer(self, reader: Reader) -> None:
        """RFC 6143 §7.1.2: an empty list is followed by the reason of an error."""
        self.offered = tuple(reader.take(reader.uint(1)))
        if self.offered:
            self.client_next(self._choice)
        else:
            self.stay_plain()

    def _choice(self, reader: Reader) -> None:
        self.security = reader.uint(1)
        if self.security == VENCRYPT:
            self.server_next(self._vencrypt_version)
        elif self.security == TLS:
            self._upgrade()
        else:
            self.stay_plain()

    def _vencrypt_version(self, reader: Reader) -> None:
        """VeNCrypt §6.2.19: major and minor."""
        reader.take(2)
        self.client_next(self._vencrypt_choice)

    def _vencrypt_choice(self, reader: Reader) -> None:
        """0.0 is a refusal. 0.1 is obsolete, and numbers its subtypes differently."""
        if reader.take(2) == b"\x00\x02":
            self.server_next(self._subtypes)
        else:
            self.stay_plain()

    def _subtypes(self, reader: Reader) -> None:
        """VeNCrypt §6.2.19.0.2: an acknowledgement (0), and the subtypes."""
        if reader.uint(1) == 0 and reader.take(4 * reader.uint(1)):
            self.client_next(self._subtype_choice)
        else:
            self.stay_plain()

    def _subtype_choice(self, reader: Reader) -> None:
        self.subtype = reader.uint(4)
        if self.subtype in SUBTYPES and self.subtype != PLAIN:
            self.server_next(self._ready)
        else:
            self.stay_plain()

    def _ready(self, reader: Reader) -> None:
        """1: TLS begins; 0: the server cannot."""
        if reader.uint(1) == 1:
            self._upgrade()
        else:
            self.stay_plain()

    def _upgrade(self) -> None:
        self.upgraded = True
        self.go_inside()


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
