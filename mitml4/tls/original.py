"""The parts of the server's certificate, as bytes.

The certificate may be hostile: its signature has not been verified. So only its outer structure is
parsed (RFC 5280 §4.1), and a malformed part does not affect another part.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.dataclass import dataclass
from mitml4.errors import CertificateError
from mitml4.tls.der import BOOLEAN, Element, elements
from mitml4.tls.keys import KeyType, describe_key, mirror_key_type

__all__ = ["Extension", "Original", "key_of", "key_type_of", "names_of"]

_VERSION: Final = 0xA0  # [0] EXPLICIT
_EXTENSIONS: Final = 0xA3  # [3] EXPLICIT
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


@dataclass(frozen=True, slots=True)
class Extension:
    """The contents of an extension's OBJECT IDENTIFIER, and its DER value."""

    oid: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The parts of a certificate that a leaf can mirror."""

    subject: bytes
    """The DER of the Name, as the server encoded it."""
    issuer: bytes
    not_before: datetime | None
    """UTC; None if it is not a valid date."""
    not_after: datetime | None
    spki: bytes
    extensions: tuple[Extension, ...]

    @classmethod
    def read(cls, certificate: x509.Certificate | bytes) -> Original:
        """From a certificate or its DER. Raises CertificateError if its outer structure is
        broken."""
        if isinstance(certificate, x509.Certificate):
            certificate = certificate.public_bytes(Encoding.DER)
        try:
            return cls._read(certificate)
        except (ValueError, IndexError, StopIteration) as error:
            raise CertificateError(f"the server's certificate cannot be read: {error}") from error

    @classmethod
    def _read(cls, der: bytes) -> Original:
        whole = next(elements(der))
        fields = list(elements(next(elements(whole.content)).content))
        if fields[0].tag == _VERSION:
            del fields[0]
        _serial, _algorithm, issuer, validity, subject, spki = fields[:6]
        not_before, not_after = list(elements(validity.content))[:2]
        return cls(
            subject=subject.raw,
            issuer=issuer.raw,
            not_before=_read_time(not_before),
            not_after=_read_time(not_after),
            spki=spki.raw,
            extensions=_read_extensions(fields[6:]),
        )

    @property
    def key(self) -> str:
        """The key's type and size, as `describe_key` returns them."""
        return describe_key(self.spki)

    def extension(self, oid: bytes) -> bytes | None:
        """The value of the first extension with this OBJECT IDENTIFIER's contents."""
        return next((each.value for each in self.extensions if each.oid == oid), None)


def key_type_of(certificate: x509.Certificate | bytes) -> KeyType:
    """The type and size class of the server's key, given its certificate or the DER of it."""
    return mirror_key_type(Original.read(certificate).key)


def key_of(certificate: bytes) -> bytes:
    """The DER of a certificate's SubjectPublicKeyInfo; empty if it is broken."""
    try:
        return Original.read(certificate).spki
    except CertificateError:
        return b""


def names_of(certificate: bytes) -> tuple[bytes, bytes]:
    """The DER of a certificate's subject and of its issuer, which no two broken ones share."""
    try:
        original = Original.read(certificate)
    except CertificateError:
        return b"", b"?"
    return original.subject, original.issuer


def _read_extensions(fields: list[Element]) -> tuple[Extension, ...]:
    wrapped = next((field for field in fields if field.tag == _EXTENSIONS), None)
    if wrapped is None:
        return ()
    found = []
    for extension in elements(next(elements(wrapped.content)).content):
        oid, *_critical, value = (
            part for part in elements(extension.content) if part.tag != BOOLEAN
        )
        found.append(Extension(oid.content, value.content))
    return tuple(found)


def _read_time(time: Element) -> datetime | None:
    """UTCTime is from 1950 to 2049, GeneralizedTime has four digits for the year (RFC 5280
    §4.1.2.5)."""
    text = time.content.decode("ascii", "replace")
    if time.tag == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
