"""Key types: the server's is named and mirrored, the client's signature algorithms decide."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mitml4.tls.keys import KeyType, allowed_key_type, describe_key, mirror_key_type

TLS_1_2, TLS_1_3 = 0x0303, 0x0304


@pytest.mark.parametrize(
    ("key", "described", "mirrored"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ec-p256", KeyType.EC_P256),
        (ec.generate_private_key(ec.SECP384R1()), "ec-p384", KeyType.EC_P384),
        (ec.generate_private_key(ec.SECP521R1()), "ec-p521", KeyType.EC_P521),
        (ec.generate_private_key(ec.SECP256K1()), "ec-secp256k1", KeyType.EC_P256),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519", KeyType.ED25519),
        (ed448.Ed448PrivateKey.generate(), "ed448", KeyType.EC_P256),
        (rsa.generate_private_key(65537, 1024), "rsa-1024", KeyType.RSA_2048),
        (rsa.generate_private_key(65537, 2048), "rsa-2048", KeyType.RSA_2048),
        (dsa.generate_private_key(1024), "dsa-1024", KeyType.EC_P256),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_is_named_and_mirrored(
    key: ec.EllipticCurvePrivateKey, described: str, mirrored: KeyType
) -> None:
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert describe_key(spki) == described
    assert mirror_key_type(described) is mirrored


def test_no_key_is_unknown() -> None:
    assert describe_key(b"") == describe_key(b"\x30\x00") == "unknown"
    assert mirror_key_type("unknown") is KeyType.EC_P256


@pytest.mark.parametrize(
    ("bits", "mirrored"),
    [
        (512, KeyType.RSA_2048),
        (2047, KeyType.RSA_2048),
        (3071, KeyType.RSA_2048),
        (3072, KeyType.RSA_3072),
        (4096, KeyType.RSA_4096),
        (16384, KeyType.RSA_4096),
    ],
)
def test_rsa_goes_down_to_its_size_class_but_not_below_2048(bits: int, mirrored: KeyType) -> None:
    assert mirror_key_type(f"rsa-{bits}") is mirrored


def test_the_clients_signature_algorithms_decide() -> None:
    for server, offered, version, allowed in (
        (KeyType.EC_P256, [0x0403, 0x0804], TLS_1_3, KeyType.EC_P256),
        (KeyType.RSA_4096, [0x0403, 0x0804], TLS_1_3, KeyType.RSA_4096),
        (KeyType.EC_P384, [0x0403, 0x0804], TLS_1_3, KeyType.EC_P256),
        (KeyType.EC_P384, [0x0403, 0x0804], TLS_1_2, KeyType.EC_P384),
        (KeyType.EC_P256, [0x0804, 0x0401], TLS_1_3, KeyType.RSA_2048),
        (KeyType.RSA_2048, [0x0403, 0x0401], TLS_1_3, KeyType.EC_P256),
        (KeyType.RSA_2048, [0x0403, 0x0401], TLS_1_2, KeyType.RSA_2048),
        (KeyType.ED25519, [0x0403], TLS_1_3, KeyType.EC_P256),
        (KeyType.ED25519, [0x0807], TLS_1_2, KeyType.ED25519),
        (KeyType.RSA_2048, [0x0807], TLS_1_3, KeyType.ED25519),
        (KeyType.EC_P256, [0x0503], TLS_1_3, KeyType.EC_P384),
        (KeyType.EC_P256, [0x0603], TLS_1_3, KeyType.EC_P521),
        (KeyType.EC_P256, [], TLS_1_3, KeyType.EC_P256),
        (KeyType.RSA_3072, [0x0808, 0xFAFA], TLS_1_3, KeyType.RSA_3072),
        (KeyType.RSA_3072, None, TLS_1_2, KeyType.RSA_3072),
        (KeyType.RSA_3072, [0x0403], 0x0302, KeyType.RSA_3072),
    ):
        assert allowed_key_type(server, offered, version=version) is allowed
