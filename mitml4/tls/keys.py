"""Key types: the server's, those that the client can verify, and the keys of the leaves."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, TypeAlias

import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from mitml4.dataclass import dataclass

__all__ = [
    "KeyType",
    "LeafKey",
    "LeafKeys",
    "PrivateKey",
    "allowed_key_type",
    "describe_key",
    "generate_key",
    "mirror_key_type",
    "sign",
    "signing_hash",
]

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class KeyType(StrEnum):
    """The type and size class of a key that mitml4 can generate."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    ED25519 = "ed25519"


_CURVES: Final[dict[KeyType, ec.EllipticCurve]] = {
    KeyType.EC_P256: ec.SECP256R1(),
    KeyType.EC_P384: ec.SECP384R1(),
    KeyType.EC_P521: ec.SECP521R1(),
}
_RSA_BITS: Final = {KeyType.RSA_2048: 2048, KeyType.RSA_3072: 3072, KeyType.RSA_4096: 4096}
_CURVE_NAMES: Final = {curve.name: key_type.value for key_type, curve in _CURVES.items()}

_TLS13: Final = 0x0304
_TLS12: Final = 0x0303

_RSA_PSS: Final = frozenset({0x0804, 0x0805, 0x0806})  # rsa_pss_rsae_sha256, 384, 512
_RSA_PKCS1: Final = frozenset({0x0201, 0x0301, 0x0401, 0x0501, 0x0601})
_ECDSA: Final = frozenset({0x0203, 0x0303, 0x0403, 0x0503, 0x0603})

_SCHEMES_TLS13: Final[dict[KeyType, frozenset[int]]] = {
    KeyType.EC_P256: frozenset({0x0403}),  # RFC 8446 §4.2.3: a scheme names its curve
    KeyType.EC_P384: frozenset({0x0503}),
    KeyType.EC_P521: frozenset({0x0603}),
    KeyType.RSA_2048: _RSA_PSS,
    KeyType.RSA_3072: _RSA_PSS,
    KeyType.RSA_4096: _RSA_PSS,
    KeyType.ED25519: frozenset({0x0807}),
}
_SCHEMES_TLS12: Final[dict[KeyType, frozenset[int]]] = {
    KeyType.EC_P256: _ECDSA,  # RFC 5246 §7.4.1.4.1: a hash and a signature, any curve
    KeyType.EC_P384: _ECDSA,
    KeyType.EC_P521: _ECDSA,
    KeyType.RSA_2048: _RSA_PKCS1 | _RSA_PSS,
    KeyType.RSA_3072: _RSA_PKCS1 | _RSA_PSS,
    KeyType.RSA_4096: _RSA_PKCS1 | _RSA_PSS,
    KeyType.ED25519: frozenset({0x0807}),  # RFC 8422 §5.1.3
}
_PREFERENCE: Final = (KeyType.EC_P256, KeyType.RSA_2048, KeyType.EC_P384, KeyType.EC_P521)


def generate_key(key_type: KeyType) -> PrivateKey:
    """A new key. RSA takes up to seconds of CPU, during which the GIL is released."""
    if curve := _CURVES.get(key_type):
        return ec.generate_private_key(curve)
    if bits := _RSA_BITS.get(key_type):
        return rsa.generate_private_key(65537, bits)
    return ed25519.Ed25519PrivateKey.generate()


def signing_hash(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> SHA256 | SHA384 | SHA512:
    """The hash to sign with, as strong as the key: SHA-256, or a longer one for larger curves."""
    if isinstance(key, rsa.RSAPrivateKey) or key.key_size <= 256:
        return SHA256()
    return SHA384() if key.key_size <= 384 else SHA512()


def sign(key: PrivateKey, data: bytes) -> bytes:
    """A signature over `data`: ECDSA (DER), RSA PKCS#1 v1.5 or Ed25519, by the key's type."""
    match key:
        case rsa.RSAPrivateKey():
            return key.sign(data, PKCS1v15(), signing_hash(key))
        case ec.EllipticCurvePrivateKey():
            return key.sign(data, ec.ECDSA(signing_hash(key)))
        case ed25519.Ed25519PrivateKey():
            return key.sign(data)


def describe_key(spki: bytes) -> str:
    """The type and size of a key, from the DER of its SubjectPublicKeyInfo: `ec-p256`, `rsa-1024`,
    `ed448`, or `unknown`."""
    try:
        public = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    match public:
        case ec.EllipticCurvePublicKey():
            return _CURVE_NAMES.get(public.curve.name, f"ec-{public.curve.name.lower()}")
        case rsa.RSAPublicKey():
            return f"rsa-{public.key_size}"
        case dsa.DSAPublicKey():
            return f"dsa-{public.key_size}"
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case ed448.Ed448PublicKey():
            return "ed448"
        case _:
            return "unknown"


def mirror_key_type(described: str) -> KeyType:
    """The type and size class that mirrors a key with this result of `describe_key`.

    RSA is rounded down to the next class (5000 bits → 4096), but not below 2048, the minimum that
    clients accept. Other curves and types become EC P-256, which every client can verify.
    """
    kind, _, size = described.partition("-")
    if kind == "rsa":
        fitting = [key_type for key_type, bits in _RSA_BITS.items() if bits <= int(size)]
        return fitting[-1] if fitting else KeyType.RSA_2048
    return next((key_type for key_type in KeyType if key_type == described), KeyType.EC_P256)


def allowed_key_type(
    server_type: KeyType, signature_algorithms: Sequence[int] | None, *, version: int = _TLS13
) -> KeyType:
    """The server's key type if the client can verify its signatures, otherwise one that it can.

    `signature_algorithms` are the SignatureScheme code points of the ClientHello (None: no such
    extension), `version` is the negotiated one on the wire (0x0304 = TLS 1.3). If nothing fits, the
    result is the server's type: the handshake then fails as it would without mitml4.
    """
    if version < _TLS12 or signature_algorithms is None:
        # Before TLS 1.2 only the cipher suite decides, and the server chose it.
        return server_type
    schemes = _SCHEMES_TLS13 if version >= _TLS13 else _SCHEMES_TLS12
    offered = frozenset(signature_algorithms)
    for key_type in (server_type, *_PREFERENCE, KeyType.ED25519):
        if offered & schemes[key_type]:
            return key_type
    return server_type


@dataclass(frozen=True, slots=True)
class LeafKey:
    """A key of leaves, with its SubjectPublicKeyInfo and key identifier, which every leaf
    contains."""

    type: KeyType
    private: PrivateKey
    spki: bytes
    identifier: bytes
    """160 bits (RFC 5280 §4.2.1.2, method 1)."""

    @classmethod
    def generate(cls, key_type: KeyType) -> LeafKey:
        private = generate_key(key_type)
        public = private.public_key()
        return cls(
            key_type,
            private,
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            x509.SubjectKeyIdentifier.from_public_key(public).digest,
        )


class LeafKeys:
    """The session's keys of leaves: one per type, generated on first use, in a worker thread.

    One limiter per type ensures that each key is generated once: trio keeps the limiter with the
    thread even when the waiting task is cancelled, so the next caller finds the key.
    """

    def __init__(self) -> None:
        self._keys: dict[KeyType, LeafKey] = {}
        self._makers = {key_type: trio.CapacityLimiter(1) for key_type in KeyType}

    async def get(self, key_type: KeyType) -> LeafKey:
        """The key of this type. Checkpoints only while it is being generated."""
        if key := self._keys.get(key_type):
            return key
        return await trio.to_thread.run_sync(
            self._make, key_type, limiter=self._makers[key_type], abandon_on_cancel=True
        )

    def _make(self, key_type: KeyType) -> LeafKey:
        if key_type not in self._keys:
            self._keys[key_type] = LeafKey.generate(key_type)
        return self._keys[key_type]
