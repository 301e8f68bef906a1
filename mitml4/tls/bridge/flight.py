"""What the two handshakes of a bridged flow tell each other."""

from __future__ import annotations

from typing import Final

from mitml4.crypto.signatures import PrivateKey
from mitml4.crypto.suites import Suite
from mitml4.dataclass import dataclass
from mitml4.protocols.tls.hello import Extension
from mitml4.tls.bridge import messages, older_messages
from mitml4.tls.bridge.older import Older
from mitml4.tls.bridge.tickets import Ticket

__all__ = [
    "SETTINGS",
    "ClientFinished",
    "Flight",
    "Retry",
    "SecondHello",
    "ServerFinished",
    "Shown",
]

_TLS_1_3: Final = 0x0304
SETTINGS: Final = (Extension.APPLICATION_SETTINGS, Extension.APPLICATION_SETTINGS_OLD)
"""The code points of application settings (ALPS)."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The server asks for another hello."""

    message: messages.ServerHello


@dataclass(frozen=True, slots=True)
class SecondHello:
    """The client has answered the retry. `stream`: its records, as they came."""

    stream: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """All that a server says before the client answers, checked."""

    hello: messages.ServerHello
    extensions: messages.EncryptedExtensions | None = None
    """None in TLS 1.2."""
    older: Older | None = None
    """What was chosen in TLS 1.2; None in TLS 1.3."""
    suite: Suite
    group: int | None
    """None: the session is resumed without a new key exchange."""
    chain: tuple[bytes, ...] = ()
    """DER, the leaf first; empty where a session is resumed."""
    staple: bytes = b""
    """The OCSP response for the leaf; empty: none."""
    request: bytes = b""
    """The whole CertificateRequest; empty: the server wants no certificate of the client's."""
    compression: int | None = None
    """The algorithm with which the certificates were compressed (RFC 8879)."""
    ticket: Ticket | None = None
    """The session that is resumed."""
    new_ticket: older_messages.NewSessionTicket12 | None = None
    """In a session of TLS 1.2 that is resumed, the ticket that takes the place of the old one."""

    @property
    def asks_certificate(self) -> bool:
        return bool(self.request)

    @property
    def alpn(self) -> bytes | None:
        return self.extensions.alpn if self.extensions else self.hello.alpn

    @property
    def version(self) -> int:
        return self.hello.selected_version if self.older else _TLS_1_3

    @property
    def settings(self) -> int | None:
        """The extension of application settings, which the client has to answer."""
        if self.extensions is None:
            return None
        return next((kind for kind in SETTINGS if kind in self.extensions.extensions), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The certificate that a client is shown."""

    chain: tuple[bytes, ...]
    """DER, the leaf first."""
    key: PrivateKey
    staple: bytes = b""
    asks: bool = False
    """Whether the client gets the server's CertificateRequest. Its answer stays here."""


@dataclass(frozen=True, slots=True)
class ClientFinished:
    """The client's handshake is over."""

    settings: bytes
    """Its application settings: the whole message EncryptedExtensions; empty: not agreed."""
    has_certificate: bool = False
    """Whether it has answered a CertificateRequest with a certificate."""


@dataclass(frozen=True, slots=True)
class ServerFinished:
    """The server's handshake is over (TLS 1.2; in TLS 1.3 it is with our answer)."""

    ticket: older_messages.NewSessionTicket12 | None
