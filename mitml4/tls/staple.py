"""Stapled OCSP responses (RFC 6960): reading the server's, and making an equivalent one.

Only for a response that is current, correctly signed and certain (good or revoked) do we make one
of our own. With any other, the connection is passed through, and the client checks it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, Hash, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from mitml4.dataclass import dataclass
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.faults import parse
from mitml4.tls.keys import signing_hash

__all__ = ["Revocation", "Staple", "StapleFault", "demands_staple", "make_staple", "read_staple"]

_CLOCK_SKEW: Final = timedelta(minutes=5)


class StapleFault(Exception):  # noqa: N818 - the server's, told to the client by the client's library
    """Why no response of ours can say the same."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """That a certificate is revoked: since when (UTC), and why, if the response says so."""

    since: datetime
    reason: x509.ReasonFlags | None = None


@dataclass(frozen=True, slots=True)
class Staple:
    """A response: the start and end of its validity, UTC; and what it says."""

    this_update: datetime
    next_update: datetime
    revocation: Revocation | None = None
    """None: the certificate is good."""


def demands_staple(leaf: bytes) -> bool:
    """Whether a certificate (DER) is invalid without a staple (RFC 7633)."""
    try:
        extensions = parse(leaf).extensions
        return bool(extensions.get_extension_for_class(x509.TLSFeature))
    except Exception:  # ExtensionNotFound, ValueError, DuplicateExtension, …
        return False


def read_staple(response: bytes, leaf: bytes, issuer: bytes, now: datetime) -> Staple:
    """What a response (DER) says of a certificate. Raises StapleFault unless that is certain."""
    try:
        found = ocsp.load_der_ocsp_response(response)
        authority = parse(issuer)
        serial = parse(leaf).serial_number
        told = next(each for each in found.responses if _is_for(each, serial, authority))
        _check_signature(found, authority, now)
        status, since, until = (
            told.certificate_status,
            told.this_update_utc,
            told.next_update_utc,
        )
        revocation = None
        if revoked_at := told.revocation_time_utc:
            revocation = Revocation(revoked_at, told.revocation_reason)
    except Exception:  # ValueError, StopIteration, InvalidSignature, UnsupportedAlgorithm, …
        raise StapleFault("invalid OCSP response") from None
    if status is ocsp.OCSPCertStatus.UNKNOWN:
        raise StapleFault("OCSP status unknown")
    if until is None or not since - _CLOCK_SKEW <= now <= until:
        raise StapleFault("revoked" if revocation else "OCSP response out of date")
    return Staple(since, until, revocation)


def make_staple(staple: Staple, leaf: x509.Certificate, authority: CertificateAuthority) -> bytes:
    """The DER of a response by an authority, equivalent to `staple`, for a leaf that it has
    signed."""
    revocation = staple.revocation
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf,
        issuer=authority.certificate,
        algorithm=SHA1(),  # RFC 5019 §2.1.1: it only identifies
        cert_status=ocsp.OCSPCertStatus.REVOKED if revocation else ocsp.OCSPCertStatus.GOOD,
        this_update=staple.this_update,
        next_update=staple.next_update,
        revocation_time=revocation.since if revocation else None,
        revocation_reason=revocation.reason if revocation else None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, authority.certificate)
    return builder.sign(authority.key, signing_hash(authority.key)).public_bytes(Encoding.DER)


def _is_for(told: ocsp.OCSPSingleResponse, serial: int, issuer: x509.Certificate) -> bool:
    return told.serial_number == serial and told.issuer_name_hash == _digest(
        issuer.subject.public_bytes(), told.hash_algorithm
    )


def _digest(data: bytes, algorithm: HashAlgorithm) -> bytes:
    digest = Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    """Check that the issuer has signed it, or a responder that it has authorised (RFC 6960
    §4.2.2.2). Raises InvalidSignature, and cryptography's errors for what it cannot parse."""
    for responder in (issuer, *response.certificates):
        if responder is not issuer and not _is_authorised(responder, issuer, now):
            continue
        try:
            _verify(response, responder)
        except InvalidSignature:
            continue
        return
    raise InvalidSignature


def _is_authorised(responder: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    responder.verify_directly_issued_by(issuer)
    purposes = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    current = responder.not_valid_before_utc <= now <= responder.not_valid_after_utc
    return current and ExtendedKeyUsageOID.OCSP_SIGNING in purposes


def _verify(response: ocsp.OCSPResponse, responder: x509.Certificate) -> None:
    key, algorithm = responder.public_key(), response.signature_hash_algorithm
    if algorithm is None:
        raise InvalidSignature
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(response.signature, response.tbs_response_bytes, PKCS1v15(), algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))
    else:
        raise InvalidSignature
