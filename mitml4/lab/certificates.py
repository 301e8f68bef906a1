"""A certificate authority for the lab's servers, for valid and faulty certificates."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mitml4.dataclass import dataclass

__all__ = ["Identity", "LabAuthority"]

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
KeyKind: TypeAlias = Literal["ec", "rsa"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Two PEM files: the certificate followed by its issuer, and the private key."""

    certificate: Path
    key: Path


class LabAuthority:
    """A root that nobody trusts by default; its certificate is the PEM file `root`."""

    def __init__(self, directory: Path, name: str = "Lab Root") -> None:
        """Create it; all files are written into the directory, which must exist."""
        self.directory = directory
        self.root = directory / f"{name.lower().replace(' ', '-')}.pem"
        self._name = _named(name)
        self._key = _new_key("ec")
        self._certificate = (
            _builder(self._name, self._name, self._key, _window(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.root.write_bytes(_pem(self._certificate))

    def issue(
        self,
        *names: str,
        key: KeyKind = "ec",
        valid: tuple[datetime, datetime] | None = None,
        self_signed: bool = False,
    ) -> Identity:
        """A certificate for host names and addresses (the first is its common name).

        `valid` is notBefore and notAfter, UTC; the default is a month around now. It is for servers
        and clients.
        """
        subject = _named(names[0])
        own_key = _new_key(key)
        issuer, signing_key = (subject, own_key) if self_signed else (self._name, self._key)
        certificate = (
            _builder(subject, issuer, own_key, valid or _window(days=30))
            .add_extension(
                x509.SubjectAlternativeName([_general(n) for n in names]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
                critical=False,
            )
            .sign(signing_key, hashes.SHA256())
        )
        stem = f"{names[0].replace(':', '-')}-{certificate.serial_number:x}"
        identity = Identity(self.directory / f"{stem}.pem", self.directory / f"{stem}-key.pem")
        chain = _pem(certificate) + (b"" if self_signed else _pem(self._certificate))
        identity.certificate.write_bytes(chain)
        identity.key.write_bytes(
            own_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return identity


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, valid: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _window(*, days: int) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(days=1), now + timedelta(days=days)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key(kind: KeyKind) -> Key:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
