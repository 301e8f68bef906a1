"""Delegated credentials (RFC 9345).

A delegated credential is a short-lived key that a server's certificate has signed. It takes the
place of the certificate's key in CertificateVerify.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from mitml4.crypto.signatures import CannotVerify, PublicKey, signed_content, verify
from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.tls.bridge.wire import Fields, uint16, vector

__all__ = ["verify_credential"]

_DELEGATION_USAGE: Final = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")  # RFC 9345 §4.2
_MAX_VALIDITY: Final = timedelta(days=7)  # RFC 9345 §4.1.3
_RSA_ENCRYPTION: Final = frozenset({0x0804, 0x0805, 0x0806})
"""Schemes of RSA keys for any use, which RFC 9345 §4 does not allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credential:
    """RFC 9345 §4."""

    valid_time: int
    """Seconds from the certificate's notBefore on."""
    scheme: int
    spki: bytes
    algorithm: int
    """With which the certificate has signed it."""
    signature: bytes

    @classmethod
    def parse(cls, body: bytes) -> _Credential:
        fields = Fields(body, "delegated credential")
        credential = cls(
            valid_time=fields.uint32(),
            scheme=fields.uint16(),
            spki=fields.vector(3, least=1),
            algorithm=fields.uint16(),
            signature=fields.vector(2, least=1),
        )
        fields.end()
        return credential

    def signed_content(self, leaf: bytes) -> bytes:
        head = self.valid_time.to_bytes(4, "big") + uint16(self.scheme) + vector(3, self.spki)
        return signed_content(
            "TLS, server delegated credentials", leaf + head + uint16(self.algorithm)
        )


def verify_credential(
    body: bytes, leaf: bytes, schemes: Collection[int], leaf_schemes: Collection[int]
) -> tuple[PublicKey, int]:
    """The key of a delegated credential, and the scheme that its CertificateVerify must have.

    `body`: the extension of the certificate `leaf` (DER); `schemes`: those in the client's
    delegated_credential; `leaf_schemes`: those in its signature_algorithms.

    Raises TlsError, with ILLEGAL_PARAMETER for a credential that is not valid (RFC 9345 §4.1.3);
    CannotVerify for a key or signature scheme that is not known.
    """
    credential = _Credential.parse(body)
    if credential.scheme not in schemes or credential.algorithm not in leaf_schemes:
        raise _invalid("has a signature scheme that was not offered")
    if credential.scheme in _RSA_ENCRYPTION:
        raise _invalid("has a key for RSA encryption")
    certificate = _delegating(leaf)
    left = certificate.not_valid_before_utc - datetime.now(UTC)
    left += timedelta(seconds=credential.valid_time)
    if not timedelta() <= left <= _MAX_VALIDITY:
        raise _invalid("has expired, or is valid for more than seven days")
    key = PublicKey.of_certificate(certificate)
    try:
        verify(credential.algorithm, key, credential.signature, credential.signed_content(leaf))
    except TlsError as error:
        raise _invalid("is not signed by its certificate") from error
    return PublicKey.of_spki(credential.spki), credential.scheme


def _delegating(leaf: bytes) -> x509.Certificate:
    """The certificate, if it may delegate (RFC 9345 §4.2)."""
    try:
        certificate = x509.load_der_x509_certificate(leaf)
        certificate.extensions.get_extension_for_oid(_DELEGATION_USAGE)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    except Exception as error:  # ValueError, InvalidVersion, DuplicateExtension, …
        raise CannotVerify("the certificate of a delegated credential") from error
    if usage is None or not usage.digital_signature:
        raise _invalid("is of a certificate that may not delegate")
    return certificate


def _invalid(fault: str) -> TlsError:
    return TlsError(Alert.ILLEGAL_PARAMETER, f"a delegated credential that {fault}")
