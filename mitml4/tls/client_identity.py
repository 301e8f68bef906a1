"""The certificate that the user gives for servers that ask for a client's (`--client-cert`)."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.dsa import DSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from OpenSSL import crypto

from mitml4.dataclass import dataclass
from mitml4.tls.trust_store import certificates_in

__all__ = ["ClientIdentity", "ClientKey"]

ClientKey: TypeAlias = (
    EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey | Ed448PrivateKey | DSAPrivateKey
)


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """A certificate, its chain, and its key."""

    chain_der: tuple[bytes, ...]
    """The certificate, and what is sent after it."""
    key: ClientKey

    @classmethod
    def read(cls, path: Path) -> ClientIdentity:
        """From a PEM file. It is read at once, because the session may lose access to it later.

        Raises OSError, and crypto.Error without a key.
        """
        pem = path.read_bytes()
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, pem).to_cryptography_key()
        assert isinstance(key, ClientKey)
        return cls(tuple(certificates_in(pem)), key)

    @property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The certificate, and what is sent after it, parsed."""
        return tuple(map(x509.load_der_x509_certificate, self.chain_der))
