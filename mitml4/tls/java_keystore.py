"""Java's trust stores: reading the certificates of a JKS or PKCS#12 file, and writing one."""

from __future__ import annotations

import contextlib
import hashlib
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PKCS12Certificate,
    load_pkcs12,
    serialize_java_truststore,
)
from cryptography.utils import CryptographyDeprecationWarning

from mitml4.dataclass import dataclass

__all__ = [
    "PASSWORD",
    "jks_order",
    "read_entries",
    "read_truststore",
    "reorder_jks",
    "write_jks",
    "write_truststore",
]

PASSWORD: Final = "changeit"
"""The password of every JDK's own store; it protects no secret."""

# OpenJDK, sun.security.provider.JavaKeyStore.engineStore
_JKS_MAGIC: Final = b"\xfe\xed\xfe\xed"
_TRUSTED_CERTIFICATE: Final = 2
_X509: Final = b"X.509"
_DIGEST_BYTES: Final = 20  # SHA-1
# JavaKeyStore.getPreKeyedHash. Python imports the codec at its first use, which a confined process
# cannot.
_PASSWORD_AND_WHITENER: Final = PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite"


def read_truststore(data: bytes, password: str = PASSWORD) -> list[bytes]:
    """The DER of each certificate in a JKS or PKCS#12 store. Raises ValueError for anything else.

    Private keys and their certificates are skipped.
    """
    return [der for _, der in read_entries(data, password)]


def read_entries(data: bytes, password: str = PASSWORD) -> list[tuple[str, bytes]]:
    """Alias and DER of each certificate that `read_truststore` returns."""
    if data.startswith(_JKS_MAGIC):
        entries = _read_jks(data)
        return [(each.alias, each.certificate) for each in entries if each.certificate is not None]
    for secret in (password.encode(), None):  # since JDK 18, the stores of JDKs have no password
        try:
            with _old_roots_allowed():
                bags = load_pkcs12(data, secret).additional_certs
        except ValueError:
            continue
        return [
            ((bag.friendly_name or b"").decode(), bag.certificate.public_bytes(Encoding.DER))
            for bag in bags
        ]
    raise ValueError("neither JKS nor PKCS#12, or another password")


def jks_order(data: bytes) -> list[str] | None:
    """The aliases of a JKS in the order of its entries; None for another kind of store."""
    return [each.alias for each in _read_jks(data)] if data.startswith(_JKS_MAGIC) else None


def reorder_jks(data: bytes, order: Iterable[str]) -> bytes:
    """A JKS with its entries in another order; entries that `order` does not name come last.

    Java writes entries in the order of a hash table, not as they were read. Raises ValueError if it
    is not a JKS, or has another password.
    """
    if data[-_DIGEST_BYTES:] != _digest(data[:-_DIGEST_BYTES]):
        raise ValueError("no JKS, or another password")
    places = {alias: place for place, alias in enumerate(order)}
    entries = sorted(_read_jks(data), key=lambda each: places.get(each.alias, len(places)))
    return _with_digest([each.raw for each in entries])


def write_truststore(certificates: Iterable[bytes], password: str = PASSWORD) -> bytes:
    """A PKCS#12 in which Java trusts each certificate (given as DER); malformed ones are left
    out."""
    entries: list[PKCS12Certificate] = []
    with _old_roots_allowed():
        for number, der in enumerate(certificates):
            try:
                certificate = x509.load_der_x509_certificate(der)
            except ValueError:
                continue
            entries.append(PKCS12Certificate(certificate, b"mitml4-%d" % number))
    return serialize_java_truststore(entries, BestAvailableEncryption(password.encode()))


def write_jks(certificates: Iterable[bytes]) -> bytes:
    """A JKS in which Java trusts each certificate (given as DER), with or without the password.

    A file that replaces a JDK's own store is opened without a password. A PKCS#12 permits that only
    if it is never opened with one.
    """
    entries = []
    for number, der in enumerate(certificates):
        alias = b"mitml4-%d" % number
        entries.append(
            struct.pack(">IH", _TRUSTED_CERTIFICATE, len(alias))
            + alias
            + struct.pack(">QH", 0, len(_X509))
            + _X509
            + struct.pack(">I", len(der))
            + der
        )
    return _with_digest(entries)


def _with_digest(entries: Sequence[bytes]) -> bytes:
    data = _JKS_MAGIC + struct.pack(">II", 2, len(entries)) + b"".join(entries)
    return data + _digest(data)


def _digest(data: bytes) -> bytes:
    return hashlib.sha1(_PASSWORD_AND_WHITENER + data, usedforsecurity=False).digest()


@contextlib.contextmanager
def _old_roots_allowed() -> Iterator[None]:
    """Some roots have serial numbers that the library warns about; users cannot change that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        yield


@dataclass(frozen=True, slots=True)
class _JksEntry:
    alias: str
    certificate: bytes | None
    """DER; None for a private key."""
    raw: bytes


def _read_jks(data: bytes) -> list[_JksEntry]:
    try:
        return _read_jks_entries(data)
    except struct.error as error:
        raise ValueError("the key store is cut short") from error


def _read_jks_entries(data: bytes) -> list[_JksEntry]:
    at = len(_JKS_MAGIC)

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return int(value)

    def block(form: str) -> bytes:
        nonlocal at
        size = number(form)
        at += size
        if at > len(data):
            raise ValueError("the key store is cut short")
        return data[at - size : at]

    version = number(">I")
    if version != 2:
        raise ValueError(f"no JKS version {version}")
    entries = []
    for _ in range(number(">I")):
        start = at
        kind = number(">I")
        alias = block(">H").decode(errors="replace")
        number(">Q")  # creation time
        certificate = None
        if kind == _TRUSTED_CERTIFICATE:
            block(">H")  # "X.509"
            certificate = block(">I")
        else:
            block(">I")  # a private key, encrypted
            for _ in range(number(">I")):
                block(">H")
                block(">I")
        entries.append(_JksEntry(alias, certificate, data[start:at]))
    return entries
