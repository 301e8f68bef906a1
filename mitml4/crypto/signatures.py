"""Signatures of a handshake: which scheme fits which key, verifying and signing.

Since TLS 1.3 a scheme names everything (RFC 8446 §4.2.3): `ecdsa_secp256r1_sha256` is of a key on
that curve. In TLS 1.2 the same number is a hash and ECDSA with any curve (RFC 8422 §5.1.1).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeAlias, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import PublicKeyAlgorithmOID

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.names import signature_algorithm_name

__all__ = [
    "CannotVerify",
    "PrivateKey",
    "PublicKey",
    "schemes_of",
    "sign",
    "signed_content",
    "verify",
]

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | Ed25519PrivateKey
    | Ed448PrivateKey
    | MLDSA44PrivateKey
    | MLDSA65PrivateKey
    | MLDSA87PrivateKey
)
_Public: TypeAlias = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | Ed25519PublicKey
    | Ed448PublicKey
    | MLDSA44PublicKey
    | MLDSA65PublicKey
    | MLDSA87PublicKey
)

_TLS_1_2: Final = 0x0303
_TLS_1_3: Final = 0x0304
_REMEMBERED: Final = 64
"""A session signs with a few keys."""


class CannotVerify(Exception):  # noqa: N818 - nothing is wrong: this OpenSSL lacks it
    """A key or a scheme that is not known here. The message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """The key of a certificate or of a delegated credential."""

    key: PublicKeyTypes
    is_pss: bool
    """Whether it is an RSA key for PSS alone, id-RSASSA-PSS (RFC 4055 §1.2). cryptography loads it
    as any other RSA key. Its parameters are not checked."""

    @classmethod
    def of_certificate(cls, certificate: x509.Certificate) -> PublicKey:
        """Raises CannotVerify."""
        try:
            key = certificate.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise CannotVerify("the key of the certificate") from error
        oid = certificate.public_key_algorithm_oid
        return cls(key=key, is_pss=oid == PublicKeyAlgorithmOID.RSASSA_PSS)

    @classmethod
    def of_spki(cls, spki: bytes) -> PublicKey:
        """From the DER of a SubjectPublicKeyInfo. Raises CannotVerify."""
        try:
            key = load_der_public_key(spki)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise CannotVerify("a public key") from error
        return cls(key=key, is_pss=spki.startswith(_RSASSA_PSS, _sequence(spki, _sequence(spki))))


_RSASSA_PSS: Final = bytes.fromhex("06092a864886f70d01010a")
"""The DER of 1.2.840.113549.1.1.10."""


def _sequence(der: bytes, at: int = 0) -> int:
    """Where the content of the sequence begins whose header stands here."""
    length = der[at + 1]
    return at + 2 + (length & 0x7F if length & 0x80 else 0)


def verify(
    scheme: int, key: PublicKey, signature: bytes, data: bytes, *, version: int = _TLS_1_3
) -> None:
    """Raises TlsError for a signature that does not verify (decrypt_error), and for a scheme that
    does not fit the key or the version (illegal_parameter); CannotVerify for an unknown scheme."""
    name = signature_algorithm_name(scheme)
    found = _SCHEMES.get(scheme)
    if found is None:
        raise CannotVerify(name)
    if not found.fits(key.key, is_pss=key.is_pss, version=version):
        raise TlsError(Alert.ILLEGAL_PARAMETER, f"a signature by {name}, which is not the key's")
    try:
        verified: Any = key.key  # of a kind that takes the scheme's arguments
        verified.verify(signature, data, *_ARGUMENTS[scheme])
    except InvalidSignature:
        raise TlsError(Alert.DECRYPT_ERROR, f"a signature by {name} does not verify") from None
    except UnsupportedAlgorithm as error:
        raise CannotVerify(name) from error


def sign(scheme: int, key: PrivateKey, data: bytes) -> bytes:
    """The signature, by one of the schemes that `schemes_of` has given for the key."""
    signer: Any = key
    signature: bytes = signer.sign(data, *_ARGUMENTS[scheme])
    return signature


@lru_cache(_REMEMBERED)
def schemes_of(key: PrivateKey, *, version: int) -> tuple[int, ...]:
    """What the key can sign with in this version, best first."""
    public = key.public_key()
    fitting = [
        number
        for number, scheme in _SCHEMES.items()
        if scheme.fits(public, is_pss=False, version=version)
    ]
    if isinstance(public, ec.EllipticCurvePublicKey):
        # In TLS 1.2 any hash fits a curve: the one of the same strength goes first.
        fitting.sort(key=lambda number: not _SCHEMES[number].is_of(public.curve))
    return tuple(fitting)


def signed_content(context: str, transcript: bytes) -> bytes:
    """What is signed in TLS 1.3 (RFC 8446 §4.4.3); context: `TLS 1.3, server CertificateVerify`."""
    return b" " * 64 + context.encode() + b"\0" + transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scheme:
    keys: type[_Public]
    hash: hashes.HashAlgorithm | None = None
    """None if the kind of key determines it."""
    curve: ec.EllipticCurve | None = None
    """For TLS 1.3, and first in TLS 1.2."""
    padding: PKCS1v15 | PSS | None = None
    is_pss: bool = False
    in_1_2: bool = True
    in_1_3: bool = True

    @property
    def arguments(self) -> tuple[object, ...]:
        """What a key's `sign` and `verify` take besides the data."""
        if self.hash is None:
            return ()
        return (self.padding, self.hash) if self.padding else (ec.ECDSA(self.hash),)

    def fits(self, key: PublicKeyTypes, *, is_pss: bool, version: int) -> bool:
        allowed = self.in_1_3 if version == _TLS_1_3 else self.in_1_2 and version == _TLS_1_2
        if not allowed or is_pss != self.is_pss or not isinstance(key, self.keys):
            return False
        if self.keys is ec.EllipticCurvePublicKey and version == _TLS_1_3:
            return self.is_of(cast("ec.EllipticCurvePublicKey", key).curve)
        if self.keys is rsa.RSAPublicKey and isinstance(self.padding, PSS):
            assert self.hash
            # RFC 8017 §9.1.1: hash, salt (as long as the hash) and two bytes have to fit in.
            bits = cast("rsa.RSAPublicKey", key).key_size
            return (bits - 1 + 7) // 8 >= 2 * self.hash.digest_size + 2
        return True

    def is_of(self, curve: ec.EllipticCurve) -> bool:
        return self.curve is not None and self.curve.name == curve.name


def _pss(hash: hashes.HashAlgorithm, *, is_pss: bool = False) -> _Scheme:
    """RFC 8446 §4.2.3: MGF1 with the same hash, and a salt as long as the hash."""
    pss = PSS(MGF1(hash), hash.digest_size)
    return _Scheme(keys=rsa.RSAPublicKey, hash=hash, padding=pss, is_pss=is_pss)


def _pkcs1(hash: hashes.HashAlgorithm) -> _Scheme:
    """RFC 8446 §4.2.3: in TLS 1.3 for certificates alone."""
    return _Scheme(keys=rsa.RSAPublicKey, hash=hash, padding=PKCS1v15(), in_1_3=False)


def _ecdsa(hash: hashes.HashAlgorithm, curve: ec.EllipticCurve | None) -> _Scheme:
    return _Scheme(keys=ec.EllipticCurvePublicKey, hash=hash, curve=curve, in_1_3=curve is not None)


def _brainpool(hash: hashes.HashAlgorithm, curve: ec.EllipticCurve) -> _Scheme:
    """RFC 8734 §3: not for TLS 1.2, where the numbers of ECDSA with a hash stand for them."""
    return _Scheme(keys=ec.EllipticCurvePublicKey, hash=hash, curve=curve, in_1_2=False)


_SCHEMES: Final = {
    0x0403: _ecdsa(hashes.SHA256(), ec.SECP256R1()),
    0x0503: _ecdsa(hashes.SHA384(), ec.SECP384R1()),
    0x0603: _ecdsa(hashes.SHA512(), ec.SECP521R1()),
    0x081A: _brainpool(hashes.SHA256(), ec.BrainpoolP256R1()),
    0x081B: _brainpool(hashes.SHA384(), ec.BrainpoolP384R1()),
    0x081C: _brainpool(hashes.SHA512(), ec.BrainpoolP512R1()),
    0x0807: _Scheme(keys=Ed25519PublicKey),
    0x0808: _Scheme(keys=Ed448PublicKey),
    # draft-ietf-tls-mldsa §3: with an empty context, and not for TLS 1.2.
    0x0904: _Scheme(keys=MLDSA44PublicKey, in_1_2=False),
    0x0905: _Scheme(keys=MLDSA65PublicKey, in_1_2=False),
    0x0906: _Scheme(keys=MLDSA87PublicKey, in_1_2=False),
    0x0804: _pss(hashes.SHA256()),
    0x0805: _pss(hashes.SHA384()),
    0x0806: _pss(hashes.SHA512()),
    0x0809: _pss(hashes.SHA256(), is_pss=True),
    0x080A: _pss(hashes.SHA384(), is_pss=True),
    0x080B: _pss(hashes.SHA512(), is_pss=True),
    0x0401: _pkcs1(hashes.SHA256()),
    0x0501: _pkcs1(hashes.SHA384()),
    0x0601: _pkcs1(hashes.SHA512()),
    0x0203: _ecdsa(hashes.SHA1(), None),
    0x0201: _pkcs1(hashes.SHA1()),
}
"""By number, best first for any one key."""
_ARGUMENTS: Final = {number: scheme.arguments for number, scheme in _SCHEMES.items()}
