"""The mirrored leaf: a certificate with the server's properties, signed by our authority.

The subject and the subjectAltName are copied as bytes. The purposes, the validity and the type of
the key are copied in part. Defects are kept: expired stays expired, a wrong name stays wrong,
self-signed stays self-signed, and a leaf of an unknown issuer is signed by an authority that nobody
trusts. What refers to the real issuer (revocation, transparency, policies) is dropped, because our
authority does not provide it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from cachetools import LRUCache
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from mitml4.dataclass import dataclass
from mitml4.errors import CertificateError
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.der import (
    BIT_STRING,
    INTEGER,
    OCTET_STRING,
    OID,
    SEQUENCE,
    TRUE,
    dotted,
    elements,
    tlv,
)
from mitml4.tls.keys import KeyType, LeafKey, LeafKeys, PrivateKey, sign, signing_hash
from mitml4.tls.original import Extension, Original
from mitml4.tls.sent_chain import AUTHORITY_ALONE, SentChain, resolve
from mitml4.tls.staple import Staple, make_staple
from mitml4.tls.verify import Issuer, Unknown

__all__ = ["CACHE_SIZE", "MAX_LEAF_LIFE", "MAX_VALIDITY", "Forge", "Leaf"]

MAX_LEAF_LIFE: Final = timedelta(days=397)
"""From now on, at most: the limit of browsers (CA/Browser Forum Baseline Requirements §6.3.2)."""
MAX_VALIDITY: Final = timedelta(days=825)
"""From notBefore to notAfter, at most: the limit of Apple's systems below a user's root."""

CACHE_SIZE: Final = 1024
_MAX_CACHED_BYTES: Final = 16 * 1024
"""Of a leaf and its OCSP response; larger ones are created again for each connection."""
_MAX_NAMED: Final = 32
"""A hostile certificate can have thousands of extensions; no event lists more than this."""

# The contents of OBJECT IDENTIFIERs (RFC 5280 §4.2 unless noted)
_SAN: Final = b"\x55\x1d\x11"
_EKU: Final = b"\x55\x1d\x25"
_KEY_USAGE: Final = b"\x55\x1d\x0f"
_BASIC_CONSTRAINTS: Final = b"\x55\x1d\x13"
_SUBJECT_KEY_IDENTIFIER: Final = b"\x55\x1d\x0e"
_AUTHORITY_KEY_IDENTIFIER: Final = b"\x55\x1d\x23"
_SERVER_AUTH: Final = b"\x2b\x06\x01\x05\x05\x07\x03\x01"
_CLIENT_AUTH: Final = b"\x2b\x06\x01\x05\x05\x07\x03\x02"

_NAMES: Final = {
    _SAN: "san",
    _EKU: "extended_key_usage",
    _KEY_USAGE: "key_usage",
    _BASIC_CONSTRAINTS: "basic_constraints",
    b"\x55\x1d\x1e": "name_constraints",
    b"\x55\x1d\x1f": "crl_distribution_points",
    b"\x55\x1d\x20": "certificate_policies",
    b"\x55\x1d\x2e": "freshest_crl",
    b"\x2b\x06\x01\x05\x05\x07\x01\x01": "authority_information_access",
    b"\x2b\x06\x01\x05\x05\x07\x01\x18": "tls_feature",  # RFC 7633
    b"\x2b\x06\x01\x04\x01\xd6\x79\x02\x04\x02": "signed_certificate_timestamps",  # RFC 6962 §3.3
}

_KEY_ENCIPHERMENT: Final = 0x20
"""In the first octet of a KeyUsage, the fourth octet of its DER."""
_VERSION_3: Final = tlv(0xA0, tlv(INTEGER, b"\2"))
_EXTENSIONS: Final = 0xA3
_NO_SUBJECT: Final = tlv(SEQUENCE)
_DNS_NAME: Final = 0x82  # GeneralName [2] IA5String, [7] OCTET STRING
_IP_ADDRESS: Final = 0x87

# signatureAlgorithm by hash (RFC 5758 §3.2, RFC 4055 §5, RFC 8410 §3)
_ECDSA_WITH: Final = {
    256: tlv(SEQUENCE, tlv(OID, b"\x2a\x86\x48\xce\x3d\x04\x03\x02")),
    384: tlv(SEQUENCE, tlv(OID, b"\x2a\x86\x48\xce\x3d\x04\x03\x03")),
    512: tlv(SEQUENCE, tlv(OID, b"\x2a\x86\x48\xce\x3d\x04\x03\x04")),
}
_SHA256_WITH_RSA: Final = tlv(SEQUENCE, tlv(OID, b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"), b"\5\0")
_ED25519: Final = tlv(SEQUENCE, tlv(OID, b"\x2b\x65\x70"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Leaf:
    """A certificate for a client, its chain, and its key. Each is equal to itself only.

    `mirrored` names the properties of the server's certificate that the leaf has too,
    `not_mirrored` those that it has not: `subject`, `key`, `not_before`, `not_after`, and
    extensions by their name or dotted OID. Properties that another authority must change are not
    listed (issuer, serial, signature, key identifiers).
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """What is sent after the certificate."""
    chain_der: tuple[bytes, ...]
    """The certificate and its chain, as they are sent."""
    key: PrivateKey
    staple: bytes = b""
    """An OCSP response for the leaf (DER): good or revoked as the server's is; empty: none."""
    mirrored: tuple[str, ...]
    not_mirrored: tuple[str, ...]

    @property
    def is_cached(self) -> bool:
        """Whether it is small enough to be kept for further connections."""
        return len(self.chain_der[0]) + len(self.staple) <= _MAX_CACHED_BYTES


class Forge:
    """Creates the leaves of a session, each once, and caches the keys and the latest 1024
    leaves."""

    def __init__(
        self,
        ca: CertificateAuthority,
        narrower: Mapping[frozenset[int], CertificateAuthority] | None = None,
    ) -> None:
        """`ca` signs for servers that verify; `narrower` has the authorities for servers that
        verify only against these sets of roots."""
        self.ca = ca
        self._narrower = narrower or {}
        self._untrusted = CertificateAuthority.untrusted()
        self._keys = LeafKeys()
        self._leaves: LRUCache[Hashable, Leaf] = LRUCache(CACHE_SIZE)

    async def leaf(
        self,
        original: x509.Certificate | bytes | None,
        *,
        issuer: Issuer,
        key_type: KeyType,
        name: str | None = None,
        strict: bool = True,
        staple: Staple | None = None,
        sent: SentChain = AUTHORITY_ALONE,
    ) -> Leaf:
        """The leaf that mirrors a server's certificate (or the DER of it).

        `issuer` says who has signed the original; the leaf is signed by an authority that clients
        trust or distrust in the same way. The leaf itself has the dates and names. Unless `strict`,
        the leaf has a defect that only strict clients refuse. `staple` is what the server's OCSP
        response says, if it is certain. `sent` is what follows a leaf of a known issuer. If the
        server showed no certificate (None), the leaf is for `name`, a host name or an address
        literal.

        Checkpoints only while the first key of this type is generated, in a worker thread; the leaf
        itself is created without a checkpoint, and so only once. Raises CertificateError if the
        certificate's outer structure is broken.
        """
        key = await self._keys.get(key_type)
        shown = _shown(original, name)
        index = (shown, key_type, issuer, strict, staple, sent)
        if leaf := self._leaves.get(index):
            return leaf
        parts = _read(original, name)
        signer = self._signer(issuer, key, parts, sent)
        leaf = _mint(parts, key, signer, datetime.now(UTC).replace(microsecond=0), strict)
        if staple and not isinstance(issuer, Unknown):
            response = make_staple(staple, leaf.certificate, self._authority(issuer))
            leaf = replace(leaf, staple=response)
        if leaf.is_cached:
            self._leaves[index] = leaf
        return leaf

    def _authority(self, issuer: frozenset[int]) -> CertificateAuthority:
        return self._narrower.get(issuer, self.ca)

    def _signer(self, issuer: Issuer, key: LeafKey, original: Original, sent: SentChain) -> _Signer:
        if not isinstance(issuer, Unknown):
            return _Signer.of(self._authority(issuer), sent)
        unknown = _Signer.of(self._untrusted)
        match issuer:
            case Unknown.ROOT:
                return unknown
            case Unknown.ISSUER:
                return replace(unknown, sent=())
            case Unknown.ITSELF:
                return replace(
                    unknown,
                    key=key.private,
                    name=original.subject,
                    key_identifier=key.identifier,
                    sent=(),
                )

    async def prepare(self, *key_types: KeyType) -> None:
        """Generate keys of these types now, so that no connection has to wait for them."""
        for key_type in key_types:
            await self._keys.get(key_type)


def _shown(original: x509.Certificate | bytes | None, name: str | None) -> bytes:
    """The cache key of a leaf: the hash of the original, or the name."""
    if original is None:
        return b"name:" + (name or "").encode("utf-8", "surrogateescape")
    if isinstance(original, x509.Certificate):
        original = original.public_bytes(Encoding.DER)
    return sha256(original).digest()


def _read(original: x509.Certificate | bytes | None, name: str | None) -> Original:
    if original is not None:
        return Original.read(original)
    names = (Extension(_SAN, tlv(SEQUENCE, _general_name(name))),) if name else ()
    return Original(
        subject=_NO_SUBJECT,
        issuer=_NO_SUBJECT,
        not_before=None,
        not_after=None,
        spki=b"",
        extensions=names,
    )


def _general_name(name: str) -> bytes:
    try:
        return tlv(_IP_ADDRESS, ipaddress.ip_address(name).packed)
    except ValueError:
        return tlv(_DNS_NAME, name.encode("ascii", "replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signer:
    """The signer of a leaf."""

    key: PrivateKey
    name: bytes
    """The DER of the Name."""
    key_identifier: bytes
    not_before: datetime
    not_after: datetime
    authority: x509.Certificate
    sent: SentChain
    """What is sent after the leaf."""

    @classmethod
    def of(cls, ca: CertificateAuthority, sent: SentChain = AUTHORITY_ALONE) -> _Signer:
        return cls(
            key=ca.key,
            name=Original.read(ca.certificate).subject,
            key_identifier=_key_identifier(ca.certificate),
            not_before=ca.certificate.not_valid_before_utc,
            not_after=ca.certificate.not_valid_after_utc,
            authority=ca.certificate,
            sent=sent,
        )

    @property
    def algorithm(self) -> bytes:
        """The DER of the signatureAlgorithm."""
        match self.key:
            case rsa.RSAPrivateKey():
                return _SHA256_WITH_RSA
            case ed25519.Ed25519PrivateKey():
                return _ED25519
            case key:
                return _ECDSA_WITH[signing_hash(key).digest_size * 8]

    def certificate(self, tbs: bytes) -> x509.Certificate:
        """Sign, and check that OpenSSL can parse the result, because OpenSSL has to serve it."""
        signature = tlv(BIT_STRING, b"\0", sign(self.key, tbs))
        try:
            leaf = x509.load_der_x509_certificate(tlv(SEQUENCE, tbs, self.algorithm, signature))
            crypto.X509.from_cryptography(leaf)
        except (ValueError, crypto.Error) as error:
            message = f"the server's certificate cannot be mirrored: {error}"
            raise CertificateError(message) from error
        return leaf


def _key_identifier(certificate: x509.Certificate) -> bytes:
    """The authority's own SKI; an authority that the user has made may have none."""
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        own = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    return own.digest


def _mint(original: Original, key: LeafKey, signer: _Signer, now: datetime, strict: bool) -> Leaf:
    validity = _validity(original, signer, now)
    extensions = dict(_extensions(original, key, signer, strict))
    subject = original.subject
    try:
        certificate = signer.certificate(_tbs(subject, validity, extensions, key, signer))
    except CertificateError:
        subject = _NO_SUBJECT  # it is not a Name, and all other parts are known to be sound
        certificate = signer.certificate(_tbs(subject, validity, extensions, key, signer))
    alike = {
        "subject": subject == original.subject,
        "not_before": original.not_before == validity[0],
        "not_after": original.not_after == validity[1],
        "key": original.key == key.type,
        **_compare_extensions(original, extensions),
    }
    if not original.spki:  # there was no original
        alike.clear()
    chain = resolve(signer.sent, certificate, signer.authority)
    return Leaf(
        certificate=certificate,
        chain=chain,
        chain_der=tuple(each.public_bytes(Encoding.DER) for each in (certificate, *chain)),
        key=key.private,
        mirrored=tuple(name for name, same in alike.items() if same),
        not_mirrored=_shortened([name for name, same in alike.items() if not same]),
    )


def _tbs(
    subject: bytes,
    validity: tuple[datetime, datetime],
    extensions: dict[bytes, bytes],
    key: LeafKey,
    signer: _Signer,
) -> bytes:
    """The TBSCertificate (RFC 5280 §4.1)."""
    critical = {_BASIC_CONSTRAINTS, _KEY_USAGE}
    if subject == _NO_SUBJECT:
        # RFC 5280 §4.2.1.6: "If the subject field contains an empty sequence, then the issuing CA
        # MUST include a subjectAltName extension that is marked as critical", otherwise it SHOULD
        # NOT.
        critical.add(_SAN)
    return tlv(
        SEQUENCE,
        _VERSION_3,
        _integer(x509.random_serial_number()),
        signer.algorithm,
        signer.name,
        tlv(SEQUENCE, *map(_time, validity)),
        subject,
        key.spki,
        tlv(
            _EXTENSIONS,
            tlv(SEQUENCE, *(_extension(*each, each[0] in critical) for each in extensions.items())),
        ),
    )


def _validity(original: Original, signer: _Signer, now: datetime) -> tuple[datetime, datetime]:
    """The original's dates, limited to the authority's validity and to what clients accept.

    Defects take precedence: an expired certificate may have ended before our authority's start, and
    one that is not valid yet may start after the latest permitted end.
    """
    not_after = min(original.not_after or signer.not_after, now + MAX_LEAF_LIFE, signer.not_after)
    not_before = max(original.not_before or signer.not_before, signer.not_before)
    if not_before <= not_after:
        return max(not_before, not_after - MAX_VALIDITY), not_after
    if not_after < now:
        return min(original.not_before or not_after, not_after), not_after
    return not_before, not_before


def _extensions(
    original: Original, key: LeafKey, signer: _Signer, strict: bool
) -> Iterator[tuple[bytes, bytes]]:
    yield _BASIC_CONSTRAINTS, tlv(SEQUENCE)  # CA FALSE is the default, so DER leaves it out
    yield _KEY_USAGE, _key_usage(original, key.type)
    yield _EKU, _purposes(original)
    yield _SUBJECT_KEY_IDENTIFIER, tlv(OCTET_STRING, key.identifier)
    if strict:  # its absence is a defect that only strict clients see
        yield _AUTHORITY_KEY_IDENTIFIER, tlv(SEQUENCE, tlv(0x80, signer.key_identifier))
    if names := original.extension(_SAN):
        yield _SAN, names


def _key_usage(original: Original, key_type: KeyType) -> bytes:
    """digitalSignature; and keyEncipherment (TLS 1.2's key transport) for RSA, if the original has
    it."""
    usage = original.extension(_KEY_USAGE)
    may_encipher = usage is None or int.from_bytes(usage[3:4]) & _KEY_ENCIPHERMENT
    return (
        b"\x03\x02\x05\xa0" if key_type.startswith("rsa") and may_encipher else b"\x03\x02\x07\x80"
    )


def _purposes(original: Original) -> bytes:
    """The original's purposes that TLS uses, in its order, and always serverAuth."""
    purposes: list[bytes] = []
    try:
        for purpose in elements(next(elements(original.extension(_EKU) or b"")).content):
            if purpose.content in (_SERVER_AUTH, _CLIENT_AUTH) and purpose.content not in purposes:
                purposes.append(purpose.content)
    except (ValueError, StopIteration):
        purposes.clear()
    if _SERVER_AUTH not in purposes:
        purposes.append(_SERVER_AUTH)
    return tlv(SEQUENCE, *(tlv(OID, purpose) for purpose in purposes))


def _compare_extensions(original: Original, extensions: dict[bytes, bytes]) -> dict[str, bool]:
    """Whether the leaf has each of the original's extensions with the same content, by name."""
    alike: dict[str, bool] = {}
    seen = {_SUBJECT_KEY_IDENTIFIER, _AUTHORITY_KEY_IDENTIFIER}
    for oid, value in ((each.oid, each.value) for each in original.extensions):
        name = _NAMES.get(oid) or dotted(oid)
        if oid not in seen:
            alike[name] = extensions.get(oid) == value
        elif oid in _NAMES:  # RFC 5280 §4.2 forbids a second one of a kind
            alike[f"{name} (repeated)"] = False
        seen.add(oid)
    return alike


def _shortened(names: list[str]) -> tuple[str, ...]:
    if len(names) <= _MAX_NAMED:
        return tuple(names)
    return (*names[:_MAX_NAMED], f"{len(names) - _MAX_NAMED} more")


def _extension(oid: bytes, value: bytes, critical: bool) -> bytes:
    return tlv(SEQUENCE, tlv(OID, oid), TRUE if critical else b"", tlv(OCTET_STRING, value))


def _integer(positive: int) -> bytes:
    return tlv(INTEGER, positive.to_bytes(positive.bit_length() // 8 + 1))


def _time(time: datetime) -> bytes:
    """UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5), and before 1950."""
    digits = f"{time.year:04}{time:%m%d%H%M%S}Z".encode()
    return tlv(0x17, digits[2:]) if 1950 <= time.year < 2050 else tlv(0x18, digits)
