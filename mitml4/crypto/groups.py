"""Key exchange: elliptic curves, ML-KEM, and both together.

The side that sends first makes a `KeyShare`, the other side answers with `respond`. With a curve
both sides do the same; with ML-KEM the answer is a ciphertext, which only the first side can open.
All lengths are fixed (RFC 8446 §4.2.8.2, draft-ietf-tls-mlkem, draft-ietf-tls-ecdhe-mlkem), so a
share of another length is refused before it is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.protocols.tls.names import group_name

__all__ = [
    "SUPPORTED",
    "KeyShare",
    "client_share_bytes",
    "generate",
    "respond",
    "server_share_bytes",
]

_Agree: TypeAlias = Callable[[bytes], bytes]
"""From the peer's share, of the right length, to the shared secret. Raises ValueError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyShare:
    """Of the side that sends first. The private key is in it, and may be used more than once."""

    group: int
    share: bytes
    _agree: _Agree

    def agree(self, peer: bytes) -> bytes:
        """The shared secret, with what `respond` gave the peer.

        Raises TlsError for a share of another length, a point that is not on the curve or is
        compressed, and a secret of zeros (RFC 8446 §7.4.2).
        """
        _check_length(self.group, peer, server_share_bytes(self.group))
        try:
            return self._agree(peer)
        except ValueError:
            raise _is_broken(self.group) from None


def generate(group: int) -> KeyShare:
    """A fresh key of one of the `SUPPORTED` groups."""
    share, agree = _GROUPS[group].generate()
    return KeyShare(group=group, share=share, _agree=agree)


def respond(group: int, share: bytes) -> tuple[bytes, bytes]:
    """As the side that answers, in one of the `SUPPORTED` groups: our share, and the secret.

    Raises TlsError as `KeyShare.agree` does, and for an encapsulation key of ML-KEM with a
    coefficient out of range (FIPS 203 §7.2).
    """
    _check_length(group, share, client_share_bytes(group))
    try:
        return _GROUPS[group].respond(share)
    except ValueError:
        raise _is_broken(group) from None


def client_share_bytes(group: int) -> int:
    """The length of the share that the client sends in a ClientHello."""
    return _GROUPS[group].client_bytes


def server_share_bytes(group: int) -> int:
    """The length of the share that the server sends in a ServerHello."""
    return _GROUPS[group].server_bytes


def _check_length(group: int, share: bytes, length: int) -> None:
    if len(share) != length:
        words = f"a key share of {len(share)} bytes for {group_name(group)}"
        raise TlsError(Alert.ILLEGAL_PARAMETER, words)


def _is_broken(group: int) -> TlsError:
    return TlsError(Alert.ILLEGAL_PARAMETER, f"a key share that {group_name(group)} does not have")


class _Group(ABC):
    client_bytes: int
    server_bytes: int

    @abstractmethod
    def generate(self) -> tuple[bytes, _Agree]:
        """The client's share, and what its private key does with the server's."""

    @abstractmethod
    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        """The server's share, and the secret. Raises ValueError."""


class _DiffieHellman(_Group):
    """Both sides do the same."""

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        own, agree = self.generate()
        return own, agree(share)


class _Curve(_DiffieHellman):
    """RFC 8446 §4.2.8.2: a point is 0x04 and both coordinates; §7.4.2: the secret is the x
    coordinate, as long as the field. Brainpool's curves are RFC 8734's."""

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self._curve = curve
        self.client_bytes = self.server_bytes = 1 + 2 * ((curve.key_size + 7) // 8)

    def generate(self) -> tuple[bytes, _Agree]:
        private = ec.generate_private_key(self._curve)
        public = private.public_key()
        share = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return share, lambda peer: private.exchange(ec.ECDH(), self._point(peer))

    def _point(self, share: bytes) -> ec.EllipticCurvePublicKey:
        uncompressed = 4
        if share[0] != uncompressed:
            raise ValueError("not an uncompressed point")
        return ec.EllipticCurvePublicKey.from_encoded_point(self._curve, share)


class _X25519(_DiffieHellman):
    """RFC 7748 §6.1. A secret of zeros is cryptography's ValueError."""

    client_bytes = server_bytes = 32

    def generate(self) -> tuple[bytes, _Agree]:
        private = X25519PrivateKey.generate()
        share = private.public_key().public_bytes_raw()
        return share, lambda peer: private.exchange(X25519PublicKey.from_public_bytes(peer))


class _X448(_DiffieHellman):
    """RFC 7748 §6.2. A secret of zeros is cryptography's ValueError."""

    client_bytes = server_bytes = 56

    def generate(self) -> tuple[bytes, _Agree]:
        private = X448PrivateKey.generate()
        share = private.public_key().public_bytes_raw()
        return share, lambda peer: private.exchange(X448PublicKey.from_public_bytes(peer))


class _MlKem(_Group):
    """FIPS 203: an encapsulation key is answered with a ciphertext. A ciphertext that was changed
    gives another secret, and no error (§6.3)."""

    def __init__(
        self,
        private: type[MLKEM768PrivateKey | MLKEM1024PrivateKey],
        public: type[MLKEM768PublicKey | MLKEM1024PublicKey],
        *,
        key_bytes: int,
        ciphertext_bytes: int,
    ) -> None:
        self._private = private
        self._public = public
        self.client_bytes = key_bytes
        self.server_bytes = ciphertext_bytes

    def generate(self) -> tuple[bytes, _Agree]:
        private = self._private.generate()
        return private.public_key().public_bytes_raw(), private.decapsulate

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        secret, ciphertext = self._public.from_public_bytes(share).encapsulate()
        return ciphertext, secret


class _Hybrid(_Group):
    """Shares and secrets of two groups, one after the other (draft-ietf-tls-hybrid-design §3)."""

    def __init__(self, first: _Group, second: _Group) -> None:
        self._first = first
        self._second = second
        self.client_bytes = first.client_bytes + second.client_bytes
        self.server_bytes = first.server_bytes + second.server_bytes

    def generate(self) -> tuple[bytes, _Agree]:
        first, agree_first = self._first.generate()
        second, agree_second = self._second.generate()
        at = self._first.server_bytes
        return first + second, lambda peer: agree_first(peer[:at]) + agree_second(peer[at:])

    def respond(self, share: bytes) -> tuple[bytes, bytes]:
        at = self._first.client_bytes
        first, first_secret = self._first.respond(share[:at])
        second, second_secret = self._second.respond(share[at:])
        return first + second, first_secret + second_secret


_CURVES: Final[dict[int, ec.EllipticCurve]] = {
    0x0017: ec.SECP256R1(),
    0x0018: ec.SECP384R1(),
    0x0019: ec.SECP521R1(),
    0x001F: ec.BrainpoolP256R1(),
    0x0020: ec.BrainpoolP384R1(),
    0x0021: ec.BrainpoolP512R1(),
}


def _available() -> dict[int, _Group]:
    """The groups that this OpenSSL has: not every distribution's has Brainpool's curves, and
    ML-KEM comes with 3.5."""
    groups: dict[int, _Group] = {0x001D: _X25519()}
    if backend.x448_supported():
        groups[0x001E] = _X448()
    for number, curve in _CURVES.items():
        if backend.elliptic_curve_supported(curve):
            groups[number] = _Curve(curve)
    if backend.mlkem_supported():
        groups |= _with_mlkem()
    return groups


def _with_mlkem() -> dict[int, _Group]:
    """draft-ietf-tls-ecdhe-mlkem: X25519 stands behind ML-KEM, the other curves before it."""
    mlkem_768 = _MlKem(MLKEM768PrivateKey, MLKEM768PublicKey, key_bytes=1184, ciphertext_bytes=1088)
    mlkem_1024 = _MlKem(
        MLKEM1024PrivateKey, MLKEM1024PublicKey, key_bytes=1568, ciphertext_bytes=1568
    )
    return {
        0x0201: mlkem_768,
        0x0202: mlkem_1024,
        0x11EB: _Hybrid(_Curve(ec.SECP256R1()), mlkem_768),
        0x11EC: _Hybrid(mlkem_768, _X25519()),
        0x11ED: _Hybrid(_Curve(ec.SECP384R1()), mlkem_1024),
    }


_GROUPS: Final = _available()

SUPPORTED: Final = frozenset(_GROUPS)
"""The numbers of the groups, as IANA lists them."""
