"""The ClientHello to the server: the client's, as far as OpenSSL can reproduce it.

Groups, signature algorithms and some options are set through OpenSSL's bindings, which pyOpenSSL
contains but does not wrap. What OpenSSL does not support (a cipher suite that it was built without,
an unknown group) is left out; `protocols/tls/differences.py` compares the two hellos and lists it.
"""

from __future__ import annotations

import ssl
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, Self

from OpenSSL import SSL
from OpenSSL._util import lib

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.hello import ClientHello, Extension, parse_client_hello
from mitml4.protocols.tls.names import SIGNATURE_ALGORITHMS, group_name, without_grease

__all__ = ["Offer", "cipher_names", "prepare", "rehearse", "shape"]

_TLS_1_0: Final = 0x0301
_TLS_1_3: Final = 0x0304
_RENEGOTIATION_SCSV: Final = 0x00FF  # RFC 5746 §3.3
_FALLBACK_SCSV: Final = 0x5600  # RFC 7507
_UNCOMPRESSED_ONLY: Final = (0,)  # RFC 8422 §5.1.2
_POST_HANDSHAKE_AUTH: Final = 49  # RFC 8446 §4.2.6
_MAX_HELLO: Final = 1 << 16

# openssl/ssl.h. The first three omit an extension that OpenSSL would send.
_OP_NO_EXTENDED_MASTER_SECRET: Final = 1 << 0
_OP_NO_TICKET: Final = 1 << 14
_OP_NO_ENCRYPT_THEN_MAC: Final = 1 << 19
_OP_TLSEXT_PADDING: Final = 1 << 4
# from OpenSSL 4 on; older versions always behave this way
_OP_LEGACY_EC_POINT_FORMATS: Final = 1 << 36
_OP_NO_VERSION: Final = {0x0301: 1 << 26, 0x0302: 1 << 28, 0x0303: 1 << 27}
_MODE_SEND_FALLBACK_SCSV: Final = 1 << 7

# OpenSSL's groups by code point: NIST's, Brainpool's (RFC 7027, RFC 8734), RFC 7748's, SM2's (RFC
# 8998), finite fields (RFC 7919), ML-KEM and its hybrids.
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

# The signature algorithms that OpenSSL has: all but MD5's, by the registry's names or its own.
_MD5: Final = 0x0101
_SIGNATURE_ALGORITHMS: Final = {
    **{code: name for code, name in SIGNATURE_ALGORITHMS.items() if code != _MD5},
    0x0202: "DSA+SHA1",
    0x0301: "RSA+SHA224",
    0x0302: "DSA+SHA224",
    0x0303: "ECDSA+SHA224",
    0x0402: "DSA+SHA256",
    0x0502: "DSA+SHA384",
    0x0602: "DSA+SHA512",
    0x081A: "ecdsa_brainpoolP256r1_sha256",
    0x081B: "ecdsa_brainpoolP384r1_sha384",
    0x081C: "ecdsa_brainpoolP512r1_sha512",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """The parts of a client's hello that a context uses. Code points in its order, without
    GREASE."""

    cipher_suites: tuple[int, ...]
    minimum: int
    """The minimum version for OpenSSL. It determines how RFC 5746 is signalled: up to TLS 1.1 by a
    cipher suite, from TLS 1.2 on by an extension."""
    highest_version: int
    groups: tuple[int, ...]
    key_shares: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    options: int
    """OpenSSL's options that make extensions and point formats the same as the client's."""
    is_fallback: bool
    """Whether the client retries with a lower version after a failure (RFC 7507)."""
    post_handshake_auth: bool
    """Whether the server may ask for a certificate later (RFC 8446 §4.2.6)."""

    @classmethod
    def of(cls, hello: ClientHello) -> Self:
        versions = [version for version in hello.versions if version <= _TLS_1_3]
        lowest = max(min(versions), _TLS_1_0) if hello.supported_versions else _TLS_1_0
        return cls(
            cipher_suites=without_grease(hello.cipher_suites),
            minimum=_TLS_1_0 if _RENEGOTIATION_SCSV in hello.cipher_suites else lowest,
            highest_version=max(versions),
            groups=without_grease(hello.groups),
            key_shares=without_grease(hello.key_shares),
            signature_algorithms=without_grease(hello.signature_algorithms),
            options=_options(hello, lowest),
            is_fallback=_FALLBACK_SCSV in hello.cipher_suites,
            post_handshake_auth=hello.has(_POST_HANDSHAKE_AUTH),
        )

    def apply(self, context: SSL.Context, security_level: int) -> None:
        """Apply it at a security level of OpenSSL's. Raises SSL.Error if OpenSSL has none of the
        client's suites or versions at that level."""
        context.set_min_proto_version(self.minimum)
        context.set_max_proto_version(self.highest_version)
        context.set_options(self.options)
        if self.is_fallback:
            context.set_mode(_MODE_SEND_FALLBACK_SCSV)
        lib.SSL_CTX_set_post_handshake_auth(context._context, self.post_handshake_auth)
        self._set_cipher_suites(context, security_level)
        self._set_groups(context)
        names = [_SIGNATURE_ALGORITHMS.get(each) for each in self.signature_algorithms]
        _set_list(context, lib.SSL_CTX_set1_sigalgs_list, names)

    def _set_cipher_suites(self, context: SSL.Context, security_level: int) -> None:
        """Raises SSL.Error if OpenSSL has none of them: any other suite would be one that the
        client lacks."""
        known = [cipher_names()[suite] for suite in self.cipher_suites if suite in cipher_names()]
        older = [name for name in known if not name.startswith("TLS_")]
        newer = [name for name in known if name.startswith("TLS_")]
        if older:
            context.set_cipher_list(":".join([*older, f"@SECLEVEL={security_level}"]).encode())
        elif newer and self.highest_version >= _TLS_1_3:
            context.set_min_proto_version(_TLS_1_3)
        else:
            raise SSL.Error
        if newer:
            context.set_tls13_ciphersuites(":".join(newer).encode())

    def _set_groups(self, context: SSL.Context) -> None:
        """OpenSSL 3.5 and later send a key share for each group with a star, older versions for the
        first one."""
        names = {group: _GROUPS[group] for group in self.groups if group in _GROUPS}
        starred = [("*" if each in self.key_shares else "") + name for each, name in names.items()]
        setter = lib.SSL_CTX_set1_curves_list
        if not _set_list(context, setter, starred):
            _set_list(context, setter, list(names.values()))


def shape(hello: ClientHello) -> Hashable:
    """The part of what `prepare` sets that determines the extensions of OpenSSL's hello. Its length
    determines whether it is padded."""
    padded = hello.has(Extension.PADDING)
    name = len(hello.sni) if hello.sni and padded else bool(hello.sni)
    return name, hello.alpn, hello.status_request


def prepare(connection: SSL.Connection, hello: ClientHello) -> None:
    """Set the parts of the client's hello that belong to a single connection."""
    if hello.sni:
        connection.set_tlsext_host_name(hello.sni.encode("utf-8", "surrogateescape"))
    if hello.alpn:
        connection.set_alpn_protos(list(hello.alpn))
    if hello.status_request:
        connection.request_ocsp()


def rehearse(context: SSL.Context, hello: ClientHello) -> ClientHello:
    """The ClientHello that a server will get. Raises SSL.Error if OpenSSL cannot make one."""
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    prepare(connection, hello)
    with suppress(SSL.WantReadError):
        connection.do_handshake()
    made = parse_client_hello(connection.bio_read(_MAX_HELLO))
    assert made is not None
    return made


def _options(hello: ClientHello, lowest: int) -> int:
    absent = {
        Extension.EXTENDED_MASTER_SECRET: _OP_NO_EXTENDED_MASTER_SECRET,
        Extension.SESSION_TICKET: _OP_NO_TICKET,
        Extension.ENCRYPT_THEN_MAC: _OP_NO_ENCRYPT_THEN_MAC,
    }
    options = sum(option for extension, option in absent.items() if not hello.has(extension))
    options |= sum(option for version, option in _OP_NO_VERSION.items() if version < lowest)
    if hello.has(Extension.PADDING):
        options |= _OP_TLSEXT_PADDING
    if hello.point_formats != _UNCOMPRESSED_ONLY:
        options |= _OP_LEGACY_EC_POINT_FORMATS
    return options


def _set_list(context: SSL.Context, setter: Any, names: Sequence[str | None]) -> bool:
    """Set groups or signature algorithms, without those that OpenSSL does not support; returns
    whether any is left."""
    known = [name for name in names if name]
    if not known or setter(context._context, ":".join(known).encode()) == 1:
        return True
    lib.ERR_clear_error()
    return False


# RFC 8446 §B.4: OpenSSL supports these, but enables them only by name.
_NOT_BY_DEFAULT: Final = {0x1304: "TLS_AES_128_CCM_SHA256", 0x1305: "TLS_AES_128_CCM_8_SHA256"}


@lru_cache
def cipher_names() -> dict[int, str]:
    """OpenSSL's names by code point (the low 16 bits of the standard library's ids)."""
    everything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    everything.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    enabled = {suite["id"] & 0xFFFF: suite["name"] for suite in everything.get_ciphers()}
    return enabled | _NOT_BY_DEFAULT
