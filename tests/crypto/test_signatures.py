"""Signatures: of published handshakes, of every scheme, and of what does not fit."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mitml4.crypto.signatures import (
    CannotVerify,
    PrivateKey,
    PublicKey,
    schemes_of,
    sign,
    signed_content,
    verify,
)
from mitml4.protocols.tls.alerts import Alert, TlsError
from tests.crypto.rfc8448 import TRACES, Trace

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
DATA = signed_content("TLS 1.3, server CertificateVerify", bytes(32))

RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, PrivateKey] = {
    "rsa": RSA,
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "bp256": ec.generate_private_key(ec.BrainpoolP256R1()),
    "bp384": ec.generate_private_key(ec.BrainpoolP384R1()),
    "bp512": ec.generate_private_key(ec.BrainpoolP512R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ed448": ed448.Ed448PrivateKey.generate(),
    "mldsa44": mldsa.MLDSA44PrivateKey.generate(),
    "mldsa65": mldsa.MLDSA65PrivateKey.generate(),
    "mldsa87": mldsa.MLDSA87PrivateKey.generate(),
}
RSAE, PSS, PKCS1 = (0x0804, 0x0805, 0x0806), (0x0809, 0x080A, 0x080B), (0x0401, 0x0501, 0x0601)
SHA1 = (0x0201, 0x0203)
IN_1_3 = {
    "rsa": RSAE,
    "p256": (0x0403,),
    "p384": (0x0503,),
    "p521": (0x0603,),
    "bp256": (0x081A,),
    "bp384": (0x081B,),
    "bp512": (0x081C,),
    "ed25519": (0x0807,),
    "ed448": (0x0808,),
    "mldsa44": (0x0904,),
    "mldsa65": (0x0905,),
    "mldsa87": (0x0906,),
}
IN_1_2 = {
    "rsa": (*RSAE, *PKCS1, 0x0201),
    "p256": (0x0403, 0x0503, 0x0603, 0x0203),
    "p384": (0x0503, 0x0403, 0x0603, 0x0203),
    "p521": (0x0603, 0x0403, 0x0503, 0x0203),
    "bp256": (0x0403, 0x0503, 0x0603, 0x0203),
    "bp384": (0x0403, 0x0503, 0x0603, 0x0203),
    "bp512": (0x0403, 0x0503, 0x0603, 0x0203),
    "ed25519": (0x0807,),
    "ed448": (0x0808,),
    "mldsa44": (),
    "mldsa65": (),
    "mldsa87": (),
}
VERSIONS = {TLS_1_3: IN_1_3, TLS_1_2: IN_1_2}
EVERY_SCHEME = {0x0201, 0x0203, *RSAE, *PSS, *PKCS1} | {
    scheme for schemes in IN_1_3.values() for scheme in schemes
}
every_key = pytest.mark.parametrize("name", KEYS)
every_version = pytest.mark.parametrize("version", VERSIONS, ids=["1.3", "1.2"])


def public(key: PrivateKey, *, is_pss: bool = False) -> PublicKey:
    return PublicKey(key=key.public_key(), is_pss=is_pss)


def alert_of(scheme: int, key: PublicKey, signature: bytes, data: bytes, version: int) -> Alert:
    with pytest.raises(TlsError) as caught:
        verify(scheme, key, signature, data, version=version)
    return caught.value.alert


def certificate_messages(trace: Trace, sender: str) -> tuple[bytes, int] | None:
    """The sender's leaf, and how many messages there are up to its Certificate."""
    for number, (who, message) in enumerate(trace.messages, start=1):
        if who == sender and message[0] == 11:
            at = 4 + 1 + message[4] + 3
            length = int.from_bytes(message[at : at + 3], "big")
            return message[at + 3 : at + 3 + length], number
    return None


def test_the_signatures_of_the_published_traces_verify() -> None:
    verified = []
    for trace in TRACES.values():
        for sender in ("server", "client"):
            found = certificate_messages(trace, sender)
            if found is None:
                continue
            der, number = found
            message = trace.messages[number][1]
            scheme, signature = int.from_bytes(message[4:6], "big"), message[8:]
            data = signed_content(f"TLS 1.3, {sender} CertificateVerify", trace.transcript(number))
            key = PublicKey.of_certificate(x509.load_der_x509_certificate(der))
            verify(scheme, key, signature, data)
            assert alert_of(scheme, key, signature, data + b"x", TLS_1_3) is Alert.DECRYPT_ERROR
            verified.append((sender, scheme))
    assert verified == [
        ("server", 0x0804),
        ("server", 0x0804),
        ("server", 0x0403),
        ("client", 0x0804),
        ("server", 0x0804),
    ]


def test_what_is_signed_is_that_of_the_standard() -> None:
    # RFC 8446 §4.4.3 prints the one for a transcript of 32 times 01.
    assert signed_content("TLS 1.3, server CertificateVerify", b"\1" * 32) == bytes.fromhex(
        "2020202020202020202020202020202020202020202020202020202020202020"
        "2020202020202020202020202020202020202020202020202020202020202020"
        "544c5320312e332c207365727665722043657274696669636174655665726966"
        "79000101010101010101010101010101010101010101010101010101010101010101"
    )


@every_key
@every_version
def test_a_key_signs_by_the_schemes_that_fit_it(name: str, version: int) -> None:
    key, schemes = KEYS[name], VERSIONS[version][name]
    assert schemes_of(key, version=version) == schemes
    for scheme in schemes:
        signature = sign(scheme, key, DATA)
        verify(scheme, public(key), signature, DATA, version=version)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        verify(scheme, PublicKey.of_spki(spki), signature, DATA, version=version)
        changed = bytes([signature[0], signature[1] ^ 1]) + signature[2:]
        for broken in (changed, signature[:-1], b"", bytes(len(signature))):
            alert = alert_of(scheme, public(key), broken, DATA, version)
            assert alert is Alert.DECRYPT_ERROR
        alert = alert_of(scheme, public(key), signature, DATA[:-1], version)
        assert alert is Alert.DECRYPT_ERROR


@every_key
@every_version
def test_every_other_scheme_does_not_fit_the_key(name: str, version: int) -> None:
    key = KEYS[name]
    signature = sign(IN_1_3[name][0], key, DATA)
    for scheme in EVERY_SCHEME - set(VERSIONS[version][name]):
        alert = alert_of(scheme, public(key), signature, DATA, version)
        assert alert is Alert.ILLEGAL_PARAMETER


@pytest.mark.parametrize("version", [0x0301, 0x0302, 0x0305])
def test_no_scheme_is_of_another_version(version: int) -> None:
    signature = sign(0x0403, KEYS["p256"], DATA)
    alert = alert_of(0x0403, public(KEYS["p256"]), signature, DATA, version)
    assert alert is Alert.ILLEGAL_PARAMETER


@every_version
def test_a_pss_key_verifies_the_pss_schemes_alone(version: int) -> None:
    key = public(RSA, is_pss=True)
    for scheme, rsae in zip(PSS, RSAE, strict=True):
        signature = sign(rsae, RSA, DATA)
        verify(scheme, key, signature, DATA, version=version)
        assert alert_of(rsae, key, signature, DATA, version) is Alert.ILLEGAL_PARAMETER
    for scheme in (*PKCS1, 0x0201):
        signature = sign(scheme, RSA, DATA)
        assert alert_of(scheme, key, signature, DATA, version) is Alert.ILLEGAL_PARAMETER


def test_a_salt_of_another_length_does_not_verify() -> None:
    for salt in (0, 20, padding.PSS.MAX_LENGTH):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        signature = RSA.sign(DATA, pss, hashes.SHA256())
        assert alert_of(0x0804, public(RSA), signature, DATA, TLS_1_3) is Alert.DECRYPT_ERROR


def test_a_key_that_is_too_short_for_a_hash_has_no_such_scheme() -> None:
    short = rsa.generate_private_key(65537, 1024)
    assert schemes_of(short, version=TLS_1_3) == (0x0804, 0x0805)
    alert = alert_of(0x0806, public(short), bytes(128), DATA, TLS_1_3)
    assert alert is Alert.ILLEGAL_PARAMETER


def test_signatures_are_of_the_hash_that_the_scheme_names() -> None:
    digests = {0x0401: hashes.SHA256(), 0x0501: hashes.SHA384(), 0x0201: hashes.SHA1()}
    for scheme, digest in digests.items():
        RSA.public_key().verify(sign(scheme, RSA, DATA), DATA, padding.PKCS1v15(), digest)
    numbers = decode_dss_signature(sign(0x0503, KEYS["p384"], DATA))
    assert all(number.bit_length() <= 384 for number in numbers)
    key = KEYS["p384"].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(sign(0x0403, KEYS["p384"], DATA), DATA, ec.ECDSA(hashes.SHA256()))


# RSA's algorithm and that of PSS with default parameters, of the same length.
RSA_ENCRYPTION = bytes.fromhex("06092a864886f70d0101010500")
RSASSA_PSS = bytes.fromhex("06092a864886f70d01010a3000")


def test_a_pss_key_is_known_by_its_object_identifier() -> None:
    spki = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    short = rsa.generate_private_key(65537, 1024).public_key()
    short_spki = short.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(RSA.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1))
        .not_valid_after(datetime(2026, 1, 1) + timedelta(days=1))
        .sign(RSA, hashes.SHA256())
    )
    der = certificate.public_bytes(Encoding.DER)
    for algorithm, is_pss in ((RSA_ENCRYPTION, False), (RSASSA_PSS, True)):
        for plain in (spki, short_spki):
            assert plain.count(RSA_ENCRYPTION) == 1
            key = PublicKey.of_spki(plain.replace(RSA_ENCRYPTION, algorithm))
            assert key.is_pss is is_pss
        assert der.count(RSA_ENCRYPTION) == 1
        other = x509.load_der_x509_certificate(der.replace(RSA_ENCRYPTION, algorithm))
        key = PublicKey.of_certificate(other)
        assert key.is_pss is is_pss
        assert key.key == RSA.public_key()


def test_unknown_schemes_and_keys_cannot_be_verified() -> None:
    with pytest.raises(CannotVerify, match="sm2sig_sm3"):
        verify(0x0708, public(KEYS["p256"]), b"", DATA)
    with pytest.raises(CannotVerify, match="0xfafa"):
        verify(0xFAFA, public(KEYS["p256"]), b"", DATA)
    for spki in (b"", b"0", b"\x30\x00", hashlib.sha512(b"noise").digest()):
        with pytest.raises(CannotVerify, match="a public key"):
            PublicKey.of_spki(spki)


def test_a_dsa_key_fits_no_scheme() -> None:
    key = PublicKey(key=dsa.generate_private_key(1024).public_key(), is_pss=False)
    for scheme in EVERY_SCHEME:
        alert = alert_of(scheme, key, b"", DATA, TLS_1_2)
        assert alert is Alert.ILLEGAL_PARAMETER
