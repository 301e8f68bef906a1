"""What strict clients refuse in a chain, one certificate at a time."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.tls.faults import faults_of

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
SIGNER = rsa.generate_private_key(65537, 2048)


def signed(key: Any, *, signer: Any = SIGNER, **settings: Any) -> bytes:
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
    )
    edwards = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return builder.sign(signer, None if edwards else SHA256(), **settings).public_bytes(
        Encoding.DER
    )


def faults(*path: bytes) -> list[str]:
    return faults_of(path, known=True, now=NOW)


ROOT = signed(SIGNER)


def test_a_key_is_looked_at_wherever_it_stands() -> None:
    for key, found in (
        (rsa.generate_private_key(65537, 1024), ["weak key"]),
        (rsa.generate_private_key(65537, 2040), ["weak key"]),
        (rsa.generate_private_key(65537, 2048), []),
        (rsa.generate_private_key(3, 2048), []),
        (rsa.generate_private_key(65537, 3072), []),
        (ec.generate_private_key(ec.SECP192R1()), ["weak key"]),
        (ec.generate_private_key(ec.SECP224R1()), ["unusual key"]),
        (ec.generate_private_key(ec.SECP256R1()), []),
        (ec.generate_private_key(ec.SECP256K1()), ["unusual key"]),
        (ec.generate_private_key(ec.SECP384R1()), []),
        (ec.generate_private_key(ec.SECP521R1()), []),
        (ec.generate_private_key(ec.BrainpoolP384R1()), ["unusual key"]),
        (dsa.generate_private_key(2048), ["weak key"]),
        (ed25519.Ed25519PrivateKey.generate(), []),
        (ed448.Ed448PrivateKey.generate(), ["unusual key"]),
    ):
        shown = signed(key)
        sound = signed(ec.generate_private_key(ec.SECP256R1()))
        assert faults(shown, ROOT) == faults(sound, shown, ROOT) == faults(sound, shown) == found


@pytest.mark.parametrize(
    ("signer", "settings", "found"),
    [
        (SIGNER, {}, []),
        (ec.generate_private_key(ec.SECP384R1()), {}, []),
        (
            SIGNER,
            {"rsa_padding": padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH)},
            ["unusual signature algorithm"],
        ),
        (ed25519.Ed25519PrivateKey.generate(), {}, ["unusual signature algorithm"]),
        (ed448.Ed448PrivateKey.generate(), {}, ["unusual signature algorithm"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_signature_is_looked_at_except_a_roots(
    signer: Any, settings: dict[str, Any], found: list[str]
) -> None:
    shown = signed(SIGNER, signer=signer, **settings)
    assert faults(shown, ROOT) == faults(ROOT, shown, ROOT) == found
    assert faults(ROOT, shown) == faults(shown) == []


def test_a_key_for_pss_alone_is_no_usual_rsa_key() -> None:
    command = "openssl req -x509 -newkey rsa-pss -noenc -keyout /dev/null -subj / -outform DER"
    shown = subprocess.run(command.split(), check=True, capture_output=True).stdout
    assert "unusual key" in faults(shown)


def test_what_is_no_certificate_is_malformed() -> None:
    for noise in (b"", b"garbage", ROOT[:-1], ROOT[:40] + bytes(20) + ROOT[60:]):
        assert faults(ROOT, noise) == ["malformed certificate"]


def test_a_negative_serial_is_malformed_and_no_warning() -> None:
    version, one = bytes.fromhex("a003020102"), b"\2\1\1"
    assert faults(ROOT.replace(version + one, version + b"\2\1\xff")) == ["malformed certificate"]
