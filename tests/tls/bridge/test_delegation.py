"""Delegated credentials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from mitml4.crypto.signatures import CannotVerify, sign, verify
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.tls.bridge.delegation import verify_credential
from mitml4.tls.bridge.wire import uint16, vector

P256_SHA256, P384_SHA384, ED25519, RSAE, PSS = 0x0403, 0x0503, 0x0807, 0x0804, 0x0809
OFFERED = (P256_SHA256, ED25519, RSAE)


def a_leaf(
    key: ec.EllipticCurvePrivateKey,
    *,
    delegates: bool = True,
    digital_signature: bool = True,
    age: timedelta = timedelta(days=30),
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mitml4.test")])
    begin = datetime.now(UTC) - age
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, begin, begin + age * 3)
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign"), False
    )
    usage |= dict.fromkeys(("crl_sign", "encipher_only", "decipher_only"), False)
    builder = builder.add_extension(
        x509.KeyUsage(digital_signature=digital_signature, key_encipherment=True, **usage),
        critical=True,
    )
    if delegates:
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")
        null = b"\5\0"
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, null), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class Made:
    """A leaf, its credential, and the credential's key."""

    leaf: bytes
    body: bytes
    key: Ed25519PrivateKey

    def verify(self, schemes: tuple[int, ...] = OFFERED) -> None:
        """And a signature by the key."""
        public, scheme = verify_credential(self.body, self.leaf, schemes, OFFERED)
        assert scheme == ED25519
        verify(scheme, public, sign(scheme, self.key, b"content"), b"content")


def made(
    *,
    leaf_key: ec.EllipticCurvePrivateKey | None = None,
    leaf: bytes | None = None,
    scheme: int = ED25519,
    algorithm: int = P256_SHA256,
    left: timedelta = timedelta(days=1),
    spki: bytes | None = None,
    context: bytes = b"TLS, server delegated credentials",
) -> Made:
    leaf_key = leaf_key or ec.generate_private_key(ec.SECP256R1())
    leaf = leaf or a_leaf(leaf_key)
    key = Ed25519PrivateKey.generate()
    if spki is None:
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    valid = int((timedelta(days=30) + left).total_seconds())
    credential = valid.to_bytes(4, "big") + uint16(scheme) + vector(3, spki) + uint16(algorithm)
    signed = b" " * 64 + context + b"\0" + leaf + credential
    signature = leaf_key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return Made(leaf, credential + vector(2, signature), key)


def test_the_key_of_a_delegated_credential_takes_the_place_of_the_certificates() -> None:
    made().verify()


@pytest.mark.parametrize(
    "make",
    [
        lambda: made(scheme=P384_SHA384),
        lambda: made(algorithm=P384_SHA384),
        lambda: made(scheme=RSAE),
        lambda: made(left=timedelta(minutes=-1)),
        lambda: made(left=timedelta(days=7, minutes=1)),
        lambda: made(context=b"TLS, client delegated credentials"),
        lambda: made(algorithm=ED25519),
        lambda: made(leaf_key=(key := a_key()), leaf=a_leaf(key, delegates=False)),
        lambda: made(leaf_key=(key := a_key()), leaf=a_leaf(key, digital_signature=False)),
        lambda: made(leaf=a_leaf(a_key())),
    ],
)
def test_a_credential_that_is_not_valid_is_illegal(make: Callable[[], Made]) -> None:
    with pytest.raises(TlsError) as caught:
        make().verify()
    assert caught.value.alert == Alert.ILLEGAL_PARAMETER


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_a_credential_needs_a_scheme_that_the_client_has_offered_for_it() -> None:
    valid = made()
    with pytest.raises(TlsError) as caught:
        valid.verify(schemes=(P256_SHA256,))
    assert caught.value.alert == Alert.ILLEGAL_PARAMETER


def test_a_credential_that_is_cut_or_has_a_tail_is_a_decode_error() -> None:
    valid = made()
    for body in (*(valid.body[:end] for end in range(len(valid.body))), valid.body + b"\0"):
        with pytest.raises(TlsError) as caught:
            verify_credential(body, valid.leaf, OFFERED, OFFERED)
        assert caught.value.alert == Alert.DECODE_ERROR


def test_what_cannot_be_read_cannot_be_verified() -> None:
    valid = made()
    with pytest.raises(CannotVerify):
        verify_credential(valid.body, valid.leaf[:-1], OFFERED, OFFERED)
    with pytest.raises(CannotVerify):
        made(spki=b"\x30\0").verify()
