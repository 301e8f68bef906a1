"""Defects of a certificate chain that some clients refuse and OpenSSL's verification accepts.

OpenSSL leaves keys, digests and the use of a leaf's key to its callers, and accepts what stricter
libraries do not. Our leaf would hide these defects, so each is reported, whatever else is wrong
with the chain.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import (
    ExtendedKeyUsageOID,
    ExtensionOID,
    PublicKeyAlgorithmOID,
    SignatureAlgorithmOID,
)

__all__ = ["MALFORMED", "date_fault", "faults_of", "parse", "strict_fault_of"]

MALFORMED: Final = "malformed certificate"
_WEAK_KEY: Final = "weak key"
_UNUSUAL_KEY: Final = "unusual key"
_UNHANDLED: Final = "unhandled critical extension"

_MIN_RSA_BITS: Final = 2048
"""112 bits of security: OpenSSL's default since 3.2, and Debian's before that."""
_MAX_RSA_BITS: Final = 8192  # Go's crypto/tls accepts no larger ones
_MIN_EC_BITS: Final = 224
_MAX_CERTIFICATES: Final = 8  # a leaf, the six intermediates of rustls-webpki, a root
_MAX_SERIAL_BITS: Final = 160  # RFC 5280 §4.1.2.2: 20 octets

_USUAL_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")

_CONSTRAINABLE: Final = (x509.DNSName, x509.IPAddress)
"""Names in name constraints that usual clients know."""
_USUAL_SIGNATURES: Final = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    }
)
_WEAK_SIGNATURES: Final = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_MD5,
        SignatureAlgorithmOID.RSA_WITH_SHA1,
        SignatureAlgorithmOID._RSA_WITH_SHA1,
        SignatureAlgorithmOID.ECDSA_WITH_SHA1,
        SignatureAlgorithmOID.DSA_WITH_SHA1,
    }
)
_USUAL_CRITICAL_EXTENSIONS: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
    }
)


def faults_of(path: Sequence[bytes], *, known: bool, now: datetime) -> list[str]:
    """The defects of a path (DER, the leaf first, the trusted certificate or its would-be issuer
    last), each once.

    `known`: whether the path leads to a root that clients trust. Defects that clients refuse in any
    certificate are reported in any case; those that only make it an improper leaf are reported only
    then.
    """
    try:
        return list(dict.fromkeys(_faults(list(map(parse, path)), known, now)))
    except Exception:  # ValueError, InvalidVersion, DuplicateExtension, …
        return [MALFORMED]


def strict_fault_of(path: Sequence[bytes]) -> str | None:
    """What strict clients with OpenSSL 3 refuse in a path (DER), and OpenSSL 4 does not, in the
    words of OpenSSL 3."""
    try:
        return next(_strict_faults(list(map(parse, path))), None)
    except Exception:  # as in faults_of, which tells it
        return None


def _strict_faults(path: Sequence[x509.Certificate]) -> Iterator[str]:
    for certificate in path:
        for extension in certificate.extensions:
            value = extension.value
            if extension.critical:
                continue
            if isinstance(value, x509.BasicConstraints) and value.ca:
                yield "Basic Constraints of CA cert not marked critical"
            if isinstance(value, x509.SubjectAlternativeName) and not certificate.subject.rdns:
                yield "Subject empty and Subject Alt Name extension not critical"


def parse(der: bytes) -> x509.Certificate:
    """A certificate, without cryptography's warnings about malformed ones. Raises cryptography's
    exceptions, mostly ValueError; so do the parts of the certificate when they are read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.load_der_x509_certificate(der)


def _faults(path: Sequence[x509.Certificate], known: bool, now: datetime) -> Iterator[str]:
    leaf, *issuers = path
    for certificate in path:
        yield from _key_faults(certificate)
        yield from _purpose_faults(certificate)
        yield from _form_faults(certificate)
        yield from _constraint_faults(certificate, is_root=certificate is path[-1])
    for certificate in path[:-1]:  # a root's signature is not verified
        yield from _signature_faults(certificate)
    for certificate, issuer in pairwise(path):
        # RFC 5280 §7.1: equal whatever their case and kind of string. Go and GnuTLS compare bytes.
        if certificate.issuer.public_bytes() != issuer.subject.public_bytes():
            yield "issuer named in another form"
    for issuer in issuers:
        if fault := date_fault(issuer.not_valid_before_utc, issuer.not_valid_after_utc, now):
            yield f"CA {fault}"
    yield from _use_faults(leaf)
    if known:
        yield from _leaf_faults(leaf)
    if len(path) > _MAX_CERTIFICATES:
        yield "certificate chain too long"


def date_fault(not_before: datetime, not_after: datetime, now: datetime) -> str | None:
    """In OpenSSL's words."""
    if now < not_before:
        return "certificate is not yet valid"
    return "certificate has expired" if now > not_after else None


def _key_faults(certificate: x509.Certificate) -> Iterator[str]:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        yield _UNUSUAL_KEY
        return
    usual_form = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if usual_form not in certificate.tbs_certificate_bytes:  # a compressed point, for example
        yield _UNUSUAL_KEY
    match key:
        case rsa.RSAPublicKey() if key.key_size < _MIN_RSA_BITS:
            yield _WEAK_KEY
        case rsa.RSAPublicKey():
            # RSA-PSS keys are loaded as RSA keys.
            is_rsa = certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5
            if not is_rsa or key.key_size > _MAX_RSA_BITS or not _is_usual(key.public_numbers().e):
                yield _UNUSUAL_KEY
        case ec.EllipticCurvePublicKey() if key.key_size < _MIN_EC_BITS:
            yield _WEAK_KEY
        case ec.EllipticCurvePublicKey() if key.curve.name in _USUAL_CURVES:
            pass
        case ed25519.Ed25519PublicKey():
            pass
        case dsa.DSAPublicKey():
            yield _WEAK_KEY
        case _:
            yield _UNUSUAL_KEY


def _is_usual(exponent: int) -> bool:
    """BoringSSL accepts odd exponents of 2 to 33 bits."""
    return exponent % 2 == 1 and 2 <= exponent.bit_length() <= 33


def _form_faults(certificate: x509.Certificate) -> Iterator[str]:
    serial = certificate.serial_number
    if serial <= 0 or serial.bit_length() > _MAX_SERIAL_BITS:
        yield MALFORMED
    if certificate.not_valid_after_utc < certificate.not_valid_before_utc:
        yield "validity that ends before it begins"
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _USUAL_CRITICAL_EXTENSIONS:
            yield _UNHANDLED


def _constraint_faults(certificate: x509.Certificate, *, is_root: bool) -> Iterator[str]:
    """mbed TLS does not support name constraints. Go refuses critical ones of unusual names,
    rustls those of directory names."""
    with suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        names = (found.value.permitted_subtrees or []) + (found.value.excluded_subtrees or [])
        if not all(isinstance(name, _CONSTRAINABLE) for name in names):
            yield "constraints of unusual names"
        elif found.critical and not is_root:
            yield _UNHANDLED


def _signature_faults(certificate: x509.Certificate) -> Iterator[str]:
    algorithm = certificate.signature_algorithm_oid
    if algorithm in _WEAK_SIGNATURES:
        yield "signature digest algorithm too weak"
    elif algorithm not in _USUAL_SIGNATURES:
        yield "unusual signature algorithm"


def _use_faults(leaf: x509.Certificate) -> Iterator[str]:
    """Every handshake except RSA key transport needs a signature of the leaf's key."""
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.digital_signature:
            yield "unsuitable key usage"
    except x509.ExtensionNotFound:
        pass


def _purpose_faults(certificate: x509.Certificate) -> Iterator[str]:
    """OpenSSL takes Netscape's purpose of an issuer for the same."""
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
            yield "unsuitable certificate purpose"
    except x509.ExtensionNotFound:
        pass


def _leaf_faults(leaf: x509.Certificate) -> Iterator[str]:
    if leaf.version is not x509.Version.v3:
        yield "certificate of version 1"
    try:
        if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            yield "CA certificate as a server's"
    except x509.ExtensionNotFound:
        pass
