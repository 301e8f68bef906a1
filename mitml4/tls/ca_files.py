"""The files in which clients take the certificate of an authority. None contains its key."""

from __future__ import annotations

import plistlib
from typing import Final, Literal, TypeAlias, get_args
from uuid import NAMESPACE_URL, uuid5

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from mitml4.printable import printable
from mitml4.tls.java_keystore import PASSWORD, write_truststore

__all__ = ["FORMATS", "Format", "write_certificate"]

Format: TypeAlias = Literal["pem", "der", "p12", "mobileconfig"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

_IDENTIFIER: Final = "io.mitml4.ca"


def write_certificate(
    certificate: x509.Certificate, form: Format, password: str | None = None
) -> bytes:
    """The certificate in one of these formats: PEM, DER, a PKCS#12 trust store for Java with this
    password (by default that of every JDK), or a configuration profile for Apple's systems."""
    der = certificate.public_bytes(Encoding.DER)
    match form:
        case "pem":
            return certificate.public_bytes(Encoding.PEM)
        case "der":
            return der
        case "p12":
            return write_truststore([der], password or PASSWORD)
        case "mobileconfig":
            return _profile(certificate, der)


def _profile(certificate: x509.Certificate, der: bytes) -> bytes:
    """An unsigned profile with one root certificate (Apple, Device Management: TopLevel and
    CertificateRoot). The same certificate gives the same profile, which replaces itself."""
    sha256 = certificate.fingerprint(SHA256()).hex()
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = printable(str(names[0].value) if names else "mitml4")

    def payload(kind: str, part: str, **content: object) -> dict[str, object]:
        identifier = f"{_IDENTIFIER}.{sha256[:16]}{part}"
        return {
            "PayloadType": kind,
            "PayloadVersion": 1,
            "PayloadIdentifier": identifier,
            "PayloadUUID": str(uuid5(NAMESPACE_URL, f"{identifier}.{sha256}")).upper(),
            "PayloadDisplayName": name,
            **content,
        }

    root = payload(
        "com.apple.security.root",
        ".root",
        PayloadCertificateFileName="mitml4-ca.cer",
        PayloadContent=der,
    )
    description = "Lets mitml4 decrypt the TLS connections of this device. Remove it afterwards."
    return plistlib.dumps(
        payload("Configuration", "", PayloadDescription=description, PayloadContent=[root])
    )
