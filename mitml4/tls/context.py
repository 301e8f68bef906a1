"""Mirrored OpenSSL contexts: egress offers what the client did, ingress is pinned to the outcome.

Groups and signature algorithms are set through OpenSSL's bindings, which pyOpenSSL ships but does
not wrap; `_set_list` below is the one place that does so. What this OpenSSL cannot offer (a cipher
suite it was built without, an unknown group) is left out of the offer and named.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from OpenSSL import SSL
from OpenSSL._util import lib

from mitml4.protocols.tls.names import group_name
from mitml4.tls.forge import Leaf
from mitml4.tls.stream import Alerts

__all__ = ["Contexts", "Offer"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

KeyLog = Callable[[bytes], None]

_TLS_1_0: Final = 0x0301
_TLS_1_3: Final = 0x0304
_FATAL: Final = 2  # RFC 8446 §6, AlertLevel
_CLOSE_NOTIFY: Final = 0  # RFC 8446 §6.1
_OP_LEGACY_SERVER_CONNECT: Final = 0x4  # openssl/ssl.h; servers without RFC 5746 still exist
_OP_NO_RENEGOTIATION: Final = 1 << 30
# openssl/ssl.h: a FIN without close_notify is no fatal error, which OpenSSL would answer with an
# alert, and after which it would write no more. TlsStream tells the two ends apart all the same.
_OP_IGNORE_UNEXPECTED_EOF: Final = 1 << 7
_CERTIFICATE_REQUEST: Final = b"SSLv3/TLS read server certificate request"

# The groups that OpenSSL has, by their code points: NIST's, Brainpool's (RFC 7027, RFC 8734), RFC
# 7748's, SM2's (RFC 8998), finite fields (RFC 7919), ML-KEM and its hybrids.
_GROUPS: Final = {
    group: group_name(group)
    for group in (
        *range(0x0017, 0x0020),
        *(0x0020, 0x0021, 0x0029),
        *range(0x0100, 0x0105),
        *range(0x0200, 0x0203),
        *range(0x11EB, 0x11EF),
    )
}

# RFC 8446 §4.2.3 (RFC 5246 §7.4.1.4.1 for what it dropped): code points and OpenSSL's names.
_SIGNATURE_ALGORITHMS: Final = {
    0x0201: "rsa_pkcs1_sha1",
    0x0202: "DSA+SHA1",
    0x0302: "DSA+SHA224",
    0x0402: "DSA+SHA256",
    0x0502: "DSA+SHA384",
    0x0602: "DSA+SHA512",
    0x0203: "ecdsa_sha1",
    0x0301: "RSA+SHA224",
    0x0303: "ECDSA+SHA224",
    0x0401: "rsa_pkcs1_sha256",
    0x0403: "ecdsa_secp256r1_sha256",
    0x0501: "rsa_pkcs1_sha384",
    0x0503: "ecdsa_secp384r1_sha384",
    0x0601: "rsa_pkcs1_sha512",
    0x0603: "ecdsa_secp521r1_sha512",
    0x0708: "sm2sig_sm3",
    0x0804: "rsa_pss_rsae_sha256",
    0x0805: "rsa_pss_rsae_sha384",
    0x0806: "rsa_pss_rsae_sha512",
    0x0807: "ed25519",
    0x0808: "ed448",
    0x0809: "rsa_pss_pss_sha256",
    0x080A: "rsa_pss_pss_sha384",
    0x080B: "rsa_pss_pss_sha512",
    0x081A: "ecdsa_brainpoolP256r1_sha256",
    0x081B: "ecdsa_brainpoolP384r1_sha384",
    0x081C: "ecdsa_brainpoolP512r1_sha512",
    0x0904: "mldsa44",
    0x0905: "mldsa65",
    0x0906: "mldsa87",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a client offers, as code points in its order, GREASE left out."""

    cipher_suites: tuple[int, ...]
    lowest_version: int
    highest_version: int
    groups: tuple[int, ...] = ()
    signature_algorithms: tuple[int, ...] = ()
    post_handshake_auth: bool = False
    """Whether the server may ask for a certificate later (RFC 8446 §4.2.6)."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A context that offers all of an `Offer` but what it names."""

    context: SSL.Context
    not_mirrored: tuple[str, ...]


class _Cache(Generic[K, V]):
    """The most recently used values, at most `size`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self._values[key] = make()
            if len(self._values) > self.size:
                self._values.popitem(last=False)
        return self._values[key]


@dataclass(slots=True)
class Contexts:
    """The contexts of a session, kept by what they depend on."""

    keylog: KeyLog | None = None
    client_certificate: Path | None = None
    """A PEM file with the key and chain that servers who ask for one are given."""
    _egress: _Cache[Offer, Mirrored] = field(default_factory=lambda: _Cache(64))
    _ingress: _Cache[Hashable, SSL.Context] = field(default_factory=lambda: _Cache(256))

    def egress(self, offer: Offer) -> Mirrored:
        """For the server: offers what the client did. Raises SSL.Error if nothing of it works."""
        return self._egress.get(offer, lambda: self._make_egress(offer))

    def ingress(self, leaf: Leaf, version: int, cipher: str, alpn: bytes) -> SSL.Context:
        """For the client: exactly this version and ALPN (or none), this cipher if it can be."""
        key = (id(leaf), leaf, version, cipher, alpn)
        return self._ingress.get(key, lambda: self._make_ingress(leaf, version, cipher, alpn))

    def _make_egress(self, offer: Offer) -> Mirrored:
        context = self._make(offer.lowest_version, offer.highest_version)
        context.set_options(_OP_LEGACY_SERVER_CONNECT)
        context.set_verify(SSL.VERIFY_NONE)  # verify.py does, with one store for all connections
        lib.SSL_CTX_set_post_handshake_auth(context._context, offer.post_handshake_auth)
        not_mirrored = [
            *_set_cipher_suites(context, offer),
            *_set_list(context, "groups", offer.groups, _GROUPS),
            *_set_list(
                context, "signature_algorithms", offer.signature_algorithms, _SIGNATURE_ALGORITHMS
            ),
        ]
        if self.client_certificate:
            context.use_certificate_chain_file(self.client_certificate)
            context.use_privatekey_file(self.client_certificate)
        return Mirrored(context, tuple(not_mirrored))

    def _make_ingress(self, leaf: Leaf, version: int, cipher: str, alpn: bytes) -> SSL.Context:
        context = self._make(version, version)
        # A client that asks for a renegotiation is told no, as most servers do. A server that asks
        # gets it: some do, to ask for a certificate once they know what is requested.
        context.set_options(_OP_NO_RENEGOTIATION)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        if version >= _TLS_1_3:
            suites = [cipher, *(name for name in _tls13_names() if name != cipher)]
            context.set_tls13_ciphersuites(":".join(suites).encode())
        else:
            context.set_cipher_list(f"{cipher}:ALL:@SECLEVEL=0".encode())
        context.use_certificate(leaf.certificate)
        for certificate in leaf.chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(leaf.key)
        if alpn:
            context.set_alpn_select_callback(
                lambda _, offered: alpn if alpn in offered else SSL.NO_OVERLAPPING_PROTOCOLS
            )
        return context

    def _make(self, lowest: int, highest: int) -> SSL.Context:
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(max(lowest, _TLS_1_0))
        context.set_max_proto_version(highest)
        context.set_options(_OP_IGNORE_UNEXPECTED_EOF)
        context.set_mode(lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_info_callback(_note_alerts)
        if self.keylog:
            log = self.keylog
            context.set_keylog_callback(lambda _, line: log(line))
        return context


def _note_alerts(connection: SSL.Connection, where: int, value: int) -> None:
    """OpenSSL's info callback: the alerts that end it, and whether a certificate was asked for."""
    noted = connection.get_app_data()
    if not isinstance(noted, Alerts):
        return
    if where & SSL.SSL_CB_ALERT:
        if where & SSL.SSL_CB_READ and value & 0xFF == _CLOSE_NOTIFY:
            noted.said_goodbye = True
        elif value >> 8 == _FATAL:
            if where & SSL.SSL_CB_READ:
                noted.received = value & 0xFF
            else:
                noted.sent = value & 0xFF
    elif (
        where == SSL.SSL_CB_CONNECT_LOOP
        and not noted.asked_for_certificate
        and connection.get_state_string() == _CERTIFICATE_REQUEST
    ):
        noted.asked_for_certificate = True
        noted.on_certificate_request()


def _set_cipher_suites(context: SSL.Context, offer: Offer) -> list[str]:
    """The client's suites, in its order; returns what of that this OpenSSL cannot do.

    Raises SSL.Error when it has none: any other would be one that the client does not have.
    """
    names = _cipher_names()
    known = [names[suite] for suite in offer.cipher_suites if suite in names]
    if not known:
        raise SSL.Error
    older = [name for name in known if not name.startswith("TLS_")]
    newer = [name for name in known if name.startswith("TLS_")]
    missing = [f"cipher 0x{suite:04X}" for suite in offer.cipher_suites if suite not in names]
    if known != newer + older:  # OpenSSL offers those of TLS 1.3 first, whatever it is told
        missing.append("cipher_order")
    if older:
        try:
            context.set_cipher_list(":".join([*older, "@SECLEVEL=0"]).encode())
        except SSL.Error:
            missing.append("cipher_suites")
    elif offer.highest_version >= _TLS_1_3:
        context.set_min_proto_version(_TLS_1_3)
    if newer:
        try:
            context.set_tls13_ciphersuites(":".join(newer).encode())
        except SSL.Error:
            missing.append("cipher_suites")
    return missing


def _set_list(
    context: SSL.Context, what: str, values: Sequence[int], names: dict[int, str]
) -> list[str]:
    """Set groups or signature algorithms; returns what could not be set."""
    setter: Any = getattr(
        lib,
        {
            "groups": "SSL_CTX_set1_curves_list",
            "signature_algorithms": "SSL_CTX_set1_sigalgs_list",
        }[what],
        None,
    )
    known = [names[value] for value in values if value in names]
    missing = [f"{what} 0x{value:04X}" for value in values if value not in names]
    if not known:
        return missing
    if setter is None or setter(context._context, ":".join(known).encode()) != 1:
        lib.ERR_clear_error()
        return [what]
    return missing


# RFC 8446 §B.4: OpenSSL has these, but enables them only where they are named.
_NOT_BY_DEFAULT: Final = {0x1304: "TLS_AES_128_CCM_SHA256", 0x1305: "TLS_AES_128_CCM_8_SHA256"}


@lru_cache
def _cipher_names() -> dict[int, str]:
    """OpenSSL's names by code point (the low 16 bits of what the standard library gives)."""
    everything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    everything.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    enabled = {suite["id"] & 0xFFFF: suite["name"] for suite in everything.get_ciphers()}
    return enabled | _NOT_BY_DEFAULT


@lru_cache
def _tls13_names() -> tuple[str, ...]:
    return tuple(name for name in _cipher_names().values() if name.startswith("TLS_"))
