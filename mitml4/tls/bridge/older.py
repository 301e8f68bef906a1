"""What both legs of a TLS 1.2 handshake have in common: ECDHE with AEAD cipher suites (RFC 8422,
RFC 5288, RFC 7905), the master secret (RFC 5246 §8.1, RFC 7627), and the ends of handshakes.

Other key exchanges and CBC are left to OpenSSL.
"""

from __future__ import annotations

import hmac
from typing import Final, Literal

from mitml4.crypto import groups
from mitml4.crypto.records import Protection, protection_1_2
from mitml4.crypto.schedule import extended_master_secret, finished_1_2, master_secret
from mitml4.crypto.suites import Suite, suite_of
from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.protocols.tls.names import cipher_name, without_grease
from mitml4.tls.bridge import messages
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.transcript import Transcript

__all__ = [
    "GROUPS",
    "Older",
    "Session",
    "check_finished",
    "choose",
    "finishes_all",
    "has_bridged",
    "is_bridged",
]

GROUPS: Final = frozenset({0x0017, 0x0018, 0x0019, 0x001D, 0x001E}) & groups.SUPPORTED
"""NIST's curves and RFC 7748's: those that TLS 1.2 has, and the bridge."""
_TLS_1_2: Final = 0x0303
_TLS_1_3: Final = 0x0304
_SIGNALS: Final = (0x00FF, 0x5600)
"""Suites that are none: of RFC 5746 §3.3 and RFC 7507."""
_TLS_1_3_SUITES: Final = 0x13  # RFC 8446 §B.4: 0x1301 to 0x1305
_RSA: Final = frozenset(
    {0x0201, 0x0401, 0x0501, 0x0601, *range(0x0804, 0x0807), *range(0x0809, 0x080C)}
)
"""Signature schemes of RSA keys; the others that are offered belong to ECDSA's suites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Older:
    """What a server has chosen, in TLS 1.2."""

    suite: Suite
    signer: Literal["ECDSA", "RSA"]
    """The key that the suite asks for; Ed25519's and Ed448's belong to ECDSA."""
    extended: bool
    """Whether the master secret is an extended one (RFC 7627)."""

    def allows(self, scheme: int) -> bool:
        """Whether the suite's kind of key signs with this scheme."""
        return (scheme in _RSA) == (self.signer == "RSA")


def is_bridged(cipher_suite: int) -> bool:
    """Whether the bridge has this cipher suite, of TLS 1.3 or 1.2."""
    if suite_of(cipher_suite) is None:
        return False
    name = cipher_name(cipher_suite)
    return cipher_suite >> 8 == _TLS_1_3_SUITES or name.startswith(("ECDHE-ECDSA-", "ECDHE-RSA-"))


def has_bridged(hello: ClientHello, chosen: str | None) -> bool:
    """Whether the bridge has the cipher suite of this name that a client has offered."""
    return any(is_bridged(suite) for suite in hello.cipher_suites if cipher_name(suite) == chosen)


def finishes_all(hello: ClientHello) -> bool:
    """Whether the bridge has every version, cipher suite and group that a client offers."""
    suites = without_grease(hello.cipher_suites)
    return (
        set(hello.versions) <= {_TLS_1_2, _TLS_1_3}
        and all(is_bridged(suite) or suite in _SIGNALS for suite in suites)
        and groups.SUPPORTED.issuperset(without_grease(hello.groups))
    )


def choose(hello: messages.ServerHello) -> Older:
    """What a ServerHello has chosen. Raises CannotBridge for another key exchange or cipher,
    TlsError for a cipher suite of TLS 1.3."""
    name = cipher_name(hello.cipher_suite)
    if hello.cipher_suite >> 8 == _TLS_1_3_SUITES:
        raise TlsError(Alert.ILLEGAL_PARAMETER, "a cipher suite of TLS 1.3")
    if not is_bridged(hello.cipher_suite):
        raise CannotBridge(f"cipher suite {name}")
    if Extension.ENCRYPT_THEN_MAC in hello.extensions:
        raise TlsError(Alert.ILLEGAL_PARAMETER, "encrypt-then-MAC with an AEAD suite")
    suite = suite_of(hello.cipher_suite)
    assert suite
    return Older(
        suite=suite,
        signer="RSA" if name.startswith("ECDHE-RSA-") else "ECDSA",
        extended=Extension.EXTENDED_MASTER_SECRET in hello.extensions,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The secret of one leg, and what its keys are made with."""

    chosen: Older
    master: bytes
    client_random: bytes
    server_random: bytes

    @classmethod
    def agreed(
        cls,
        chosen: Older,
        premaster: bytes,
        transcript: Transcript,
        *,
        client_random: bytes,
        server_random: bytes,
    ) -> Session:
        """From a key exchange; `transcript`: up to the ClientKeyExchange."""
        name = chosen.suite.hash
        if chosen.extended:
            master = extended_master_secret(name, premaster, transcript.digest())
        else:
            master = master_secret(name, premaster, client_random, server_random)
        return cls(
            chosen=chosen,
            master=master,
            client_random=client_random,
            server_random=server_random,
        )

    def protection(self, *, of_client: bool) -> Protection:
        """Of the records that one side sends."""
        return protection_1_2(
            self.chosen.suite,
            self.master,
            client_random=self.client_random,
            server_random=self.server_random,
            of_client=of_client,
        )

    def finished(self, transcript: Transcript, *, of_client: bool) -> bytes:
        """The content of a Finished."""
        label = b"client finished" if of_client else b"server finished"
        return finished_1_2(self.chosen.suite.hash, self.master, label, transcript.digest())


def check_finished(expected: bytes, body: bytes) -> None:
    """Raises TlsError."""
    if len(body) != len(expected):
        raise TlsError(Alert.DECODE_ERROR, "a Finished of another length")
    if not hmac.compare_digest(body, expected):
        raise TlsError(Alert.DECRYPT_ERROR, "a Finished that does not fit")
