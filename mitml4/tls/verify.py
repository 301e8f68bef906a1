"""Whether an upstream's certificate verifies, as a client with the system's roots would see it.

The handshake itself never verifies: the flow goes on whatever the certificate is like, and the leaf
that the client is given shows the same defect. One store serves all connections, because loading
the system's roots takes longer than a handshake.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import MD5, SHA1
from OpenSSL import crypto
from OpenSSL._util import lib

from mitml4.errors import UsageError

__all__ = ["Verdict", "Verifier", "der", "matches"]

_NOT_YET_VALID: Final = 9  # openssl/x509_vfy.h: X509_V_ERR_CERT_NOT_YET_VALID
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_REMEMBERED_CHAINS: Final = 1024

_SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason` is "ok" or what is wrong; `trusted` says whether a known authority signed it."""

    reason: str
    trusted: bool


class Verifier:
    """Verifies chains against the system's roots and those of `--upstream-ca`."""

    def __init__(self, extra_roots: Path | None = None) -> None:
        """Loads the roots (some 50 ms). Raises UsageError when the extra ones cannot be read."""
        self._store = crypto.X509Store()
        # Without it, OpenSSL takes a certificate for clients or for code as a server's.
        lib.X509_STORE_set_purpose(self._store._store, lib.X509_PURPOSE_SSL_SERVER)
        for bundle in _SYSTEM_BUNDLES:
            if Path(bundle).is_file():
                self._store.load_locations(bundle)
                break
        if extra_roots is not None:
            try:
                self._store.load_locations(str(extra_roots))
            except crypto.Error:
                raise UsageError(
                    f"no certificates in {extra_roots}",
                    hint="--upstream-ca takes a PEM file with one or more CERTIFICATE blocks",
                ) from None
        self._seen: OrderedDict[bytes, Verdict] = OrderedDict()

    def verify(self, chain: Sequence[crypto.X509], name: str | None) -> Verdict:
        """Verify a chain, leaf first, for a DNS name or an IP address (None: any name)."""
        verdict = self._verify_chain(chain)
        if verdict.reason == "ok" and name and not matches(chain[0], name):
            return Verdict("hostname mismatch", trusted=True)
        return verdict

    def _verify_chain(self, chain: Sequence[crypto.X509]) -> Verdict:
        if not chain:
            return Verdict("no certificate", trusted=False)
        key = hashlib.sha256(b"".join(map(der, chain))).digest()
        if key not in self._seen:
            self._seen[key] = self._ask_openssl(chain)
            if len(self._seen) > _REMEMBERED_CHAINS:
                self._seen.popitem(last=False)
        return self._seen[key]

    def _ask_openssl(self, chain: Sequence[crypto.X509]) -> Verdict:
        leaf, *others = chain
        context = crypto.X509StoreContext(self._store, leaf, others)
        try:
            *signed, _root = context.get_verified_chain()
        except crypto.X509StoreContextError as error:
            code, depth, message = error.errors
            shown_by_the_leaf = depth == 0 and code in (_EXPIRED, _NOT_YET_VALID)
            return Verdict(str(message), trusted=shown_by_the_leaf)
        if any(map(_is_weakly_signed, signed)):
            return Verdict("signature digest algorithm too weak", trusted=False)
        return Verdict("ok", trusted=True)


def _is_weakly_signed(certificate: crypto.X509) -> bool:
    """By a digest with which the certificate could be someone else's (RFC 9155); our own leaf
    would hide it."""
    try:
        digest = certificate.to_cryptography().signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(digest, MD5 | SHA1)


def der(certificate: crypto.X509) -> bytes:
    """A certificate as it came over the wire."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def matches(certificate: crypto.X509, name: str) -> bool:
    """Whether a certificate is for a name: subjectAltName only (RFC 9525 §6.3)."""
    try:
        parsed = certificate.to_cryptography()
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        wanted = name.lower().rstrip(".")
        return any(
            _dns_matches(pattern.lower().rstrip("."), wanted)
            for pattern in names.get_values_for_type(x509.DNSName)
        )
    return address in names.get_values_for_type(x509.IPAddress)


def _dns_matches(pattern: str, name: str) -> bool:
    """A wildcard stands for exactly the whole left-most label (RFC 9525 §6.3)."""
    if not pattern.startswith("*."):
        return pattern == name
    _, _, rest = name.partition(".")
    return rest == pattern[2:]
