"""The fields of an X.509 certificate as text: the `certificate` of the `tls` details."""

from __future__ import annotations

import warnings
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from mitml4.dataclass import dataclass
from mitml4.protocols.wire_text import MAX_ITEMS, shorten

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["CertificateDetails"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateDetails:
    """Names as RFC 4514 strings, `san` entries as bare names and addresses."""

    subject: str
    issuer: str
    san: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key: str
    """`RSA-2048`, `EC P-256`, `Ed25519`."""
    sha256: str
    """Of the DER encoding, in hex."""
    verify: str | None = None
    """`ok`, or why it did not verify; None if it was not verified (passthrough, captures)."""

    @classmethod
    def of(cls, certificate: Certificate, *, verify: str | None = None) -> CertificateDetails:
        """Raises what cryptography raises (mostly ValueError) where a field cannot be read."""
        from cryptography.hazmat.primitives.hashes import SHA256

        return cls(
            subject=shorten(certificate.subject.rfc4514_string()),
            issuer=shorten(certificate.issuer.rfc4514_string()),
            san=_subject_alternative_names(certificate),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            key=_key_name(certificate),
            sha256=certificate.fingerprint(SHA256()).hex(),
            verify=verify,
        )

    @classmethod
    def of_der(cls, der: bytes) -> CertificateDetails | None:
        """None for bytes that are no readable certificate, which a server may send.

        cryptography is imported here, so that a user without certificates does not load OpenSSL.
        """
        from cryptography.x509 import load_der_x509_certificate

        with warnings.catch_warnings():
            # It warns of faults in real certificates (a negative serial number).
            warnings.simplefilter("ignore")
            try:
                return cls.of(load_der_x509_certificate(der))
            except Exception:  # ValueError, InvalidVersion, UnsupportedGeneralNameType, …
                return None


def _subject_alternative_names(certificate: Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    # One more than events show, so that they show that there are more.
    return tuple(
        name.value.rfc4514_string()
        if isinstance(name, x509.DirectoryName)
        else name.value.dotted_string
        if isinstance(name, x509.RegisteredID)
        else name.type_id.dotted_string
        if isinstance(name, x509.OtherName)
        else str(name.value)
        for name in islice(names, MAX_ITEMS + 1)
    )


def _key_name(certificate: Certificate) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

    try:
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return certificate.public_key_algorithm_oid.dotted_string
    match key:
        case rsa.RSAPublicKey():
            return f"RSA-{key.key_size}"
        case ec.EllipticCurvePublicKey():
            return f"EC {_CURVES.get(key.curve.name, key.curve.name)}"
        case dsa.DSAPublicKey():
            return f"DSA-{key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
    return certificate.public_key_algorithm_oid.dotted_string


_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
