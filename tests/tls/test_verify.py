"""What a server's certificate is found to be, as a client with the same roots would find it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from mitml4.tls.verify import Verdict, Verifier

NAME = "www.example"
DAY = timedelta(days=1)

# cryptography's builder, which it points to, does not make them.
weak_signatures = pytest.mark.filterwarnings("ignore:X509.sign is deprecated:DeprecationWarning")

Build = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


class Authority:
    """A root in a PEM file, and what it signs."""

    def __init__(self, directory: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder("A Root", "A Root", self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = crypto.X509.from_cryptography(builder.sign(self.key, SHA256()))
        self.file = directory / "root.pem"
        self.file.write_bytes(crypto.dump_certificate(crypto.FILETYPE_PEM, self.certificate))

    def _builder(
        self, subject: str, issuer: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )

    def issue(self, build: Build = lambda builder: builder) -> crypto.X509:
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
        builder = build(self._builder(NAME, "A Root", key).add_extension(names, critical=False))
        return crypto.X509.from_cryptography(builder.sign(self.key, SHA256()))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serves_as(*purposes: x509.ObjectIdentifier) -> Build:
    return lambda builder: builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)


@pytest.mark.parametrize(
    "build",
    [
        lambda builder: builder,
        serves_as(ExtendedKeyUsageOID.SERVER_AUTH),
        serves_as(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
    ],
    ids=["any purpose", "a server", "both ends"],
)
def test_a_sound_certificate_is_ok(authority: Authority, build: Build) -> None:
    verdict = Verifier(authority.file).verify([authority.issue(build)], NAME)
    assert verdict == Verdict("ok", trusted=True)


@pytest.mark.parametrize(
    "purpose", [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]
)
def test_a_certificate_that_is_not_for_servers_is_not_trusted_as_a_servers(
    authority: Authority, purpose: x509.ObjectIdentifier
) -> None:
    verdict = Verifier(authority.file).verify([authority.issue(serves_as(purpose))], NAME)
    assert not verdict.trusted
    assert "purpose" in verdict.reason


@weak_signatures
def test_a_signature_that_could_be_forged_is_not_trusted(authority: Authority) -> None:
    weak = authority.issue()
    weak.sign(crypto.PKey.from_cryptography_key(authority.key), "sha1")
    verdict = Verifier(authority.file).verify([weak], NAME)
    assert verdict == Verdict("signature digest algorithm too weak", trusted=False)


@weak_signatures
def test_what_a_root_is_signed_with_says_nothing(authority: Authority) -> None:
    authority.certificate.sign(crypto.PKey.from_cryptography_key(authority.key), "sha1")
    authority.file.write_bytes(crypto.dump_certificate(crypto.FILETYPE_PEM, authority.certificate))
    chain = [authority.issue(), authority.certificate]
    assert Verifier(authority.file).verify(chain, NAME) == Verdict("ok", trusted=True)


def test_a_wrong_name_shows_in_the_leaf_and_needs_no_distrust(authority: Authority) -> None:
    verdict = Verifier(authority.file).verify([authority.issue()], "other.example")
    assert verdict == Verdict("hostname mismatch", trusted=True)


def test_an_unknown_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    assert not Verifier(other.file).verify([authority.issue()], NAME).trusted
