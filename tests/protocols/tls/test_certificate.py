"""Certificates in words, made here and read back."""

from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.protocols.tls.certificate import CertificateDetails

FROM = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
UNTIL = datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)


def make(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    *names: x509.GeneralName,
) -> x509.Certificate:
    subject = x509.Name.from_rfc4514_string("CN=a.example,O=Example")
    issuer = x509.Name.from_rfc4514_string("CN=Authority")
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 7, FROM, UNTIL)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, algorithm)


def test_every_field_is_told() -> None:
    certificate = make(
        ec.generate_private_key(ec.SECP384R1()),
        x509.DNSName("*.example"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.DirectoryName(x509.Name.from_rfc4514_string("CN=dir")),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.OtherName(x509.ObjectIdentifier("1.2.4"), b"\x05\0"),
    )
    assert CertificateDetails.of(certificate, verify="ok") == CertificateDetails(
        subject="CN=a.example,O=Example",
        issuer="CN=Authority",
        san=("*.example", "2001:db8::1", "CN=dir", "1.2.3", "1.2.4"),
        not_before=FROM,
        not_after=UNTIL,
        key="EC P-384",
        sha256=certificate.fingerprint(SHA256()).hex(),
        verify="ok",
    )


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (rsa.generate_private_key(65537, 2048), "RSA-2048"),
        (ec.generate_private_key(ec.SECP256K1()), "EC secp256k1"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_keys_are_named(key: rsa.RSAPrivateKey, name: str) -> None:
    details = CertificateDetails.of_der(make(key).public_bytes(Encoding.DER))
    assert details is not None
    assert (details.key, details.san) == (name, ())


def test_mutated_certificates_give_facts_or_none() -> None:
    der = make(ec.generate_private_key(ec.SECP256R1()), x509.DNSName("a")).public_bytes(
        Encoding.DER
    )
    read = 0
    for at in range(len(der)):
        for byte in (0x00, 0xFF, der[at] ^ 1):
            read += CertificateDetails.of_der(der[:at] + bytes([byte]) + der[at + 1 :]) is not None
    assert 0 < read < 3 * len(der)
