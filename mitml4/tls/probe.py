"""Does a client check certificates? What `--probe-clients` shows it, one defect a connection.

A client has to refuse each of these. The leaves are signed by the session's authority, which the
client trusts, except where their issuer is the defect; so each has one. (A leaf as issuer also
exceeds the authority's path length.)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import trio
from cachetools import FIFOCache
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mitml4.dataclass import dataclass
from mitml4.protocols.tls.hello import ClientHello, Extension
from mitml4.tls.ca import AuthorityKey, CertificateAuthority
from mitml4.tls.context import Outcome
from mitml4.tls.der import BIT_STRING, OID, SEQUENCE, elements, tlv
from mitml4.tls.forge import Leaf
from mitml4.tls.keys import KeyType, LeafKeys, PrivateKey, allowed_key_type, signing_hash
from mitml4.tls.pinning import Client
from mitml4.tls.staple import Revocation, Staple, make_staple

__all__ = ["Case", "Probes", "outcome_for"]

_HARD_LIMIT: Final = 4096
"""Of clients and names that are remembered."""
_MAX_NAME: Final = 255
_MAX_COMMON_NAME: Final = 64  # RFC 5280 appendix A.1
_WEAK_RSA_BITS: Final = 1024
_OTHER_NAME: Final = "probe.invalid"
_DAY: Final = timedelta(days=1)
_OLD: Final = (0x0302, 0x0301)
_CIPHERS: Final = {
    0x0301: "ECDHE-RSA-AES128-SHA",
    0x0302: "ECDHE-RSA-AES128-SHA",
    0x0303: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0x0304: "TLS_AES_128_GCM_SHA256",
}
_HTTP_1: Final = b"http/1.1"
# signatureAlgorithm (RFC 3279 §2.2.1, §2.2.3)
_SHA1_WITH_RSA: Final = tlv(SEQUENCE, tlv(OID, b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05"), b"\5\0")
_ECDSA_WITH_SHA1: Final = tlv(SEQUENCE, tlv(OID, b"\x2a\x86\x48\xce\x3d\x04\x01"))


class Case(StrEnum):
    """A defect, by its name in events. They are shown in this order."""

    SELF_SIGNED = "self_signed"
    UNKNOWN_ISSUER = "unknown_issuer"
    WRONG_NAME = "wrong_name"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LEAF_AS_ISSUER = "leaf_as_issuer"
    """A leaf for another name, which is not an authority's, has signed it (basicConstraints)."""
    WEAK_KEY = "weak_key"
    SHA1 = "sha1"
    OLD_VERSION = "old_version"
    """TLS 1.1 or 1.0, with a leaf without a defect."""
    REVOKED = "revoked"
    """An OCSP response is stapled that says so."""

    def is_offered(self, hello: ClientHello) -> bool:
        """Whether a client with this hello can meet it."""
        match self:
            case Case.OLD_VERSION:
                return any(version in _OLD for version in _versions(hello))
            case Case.REVOKED:
                return hello.has(Extension.STATUS_REQUEST)
        return any(version in _CIPHERS and version not in _OLD for version in _versions(hello))


def _versions(hello: ClientHello) -> tuple[int, ...]:
    """Those that the client may accept: without a list, it says only which is the highest."""
    if hello.supported_versions:
        return hello.versions
    return tuple(each for each in _CIPHERS if each <= min(hello.legacy_version, 0x0303))


def outcome_for(case: Case, hello: ClientHello) -> Outcome:
    """What the handshake is to negotiate. HTTP/1 is preferred, in which clients speak first."""
    wanted = _OLD if case is Case.OLD_VERSION else (0x0304, 0x0303)
    version = next(each for each in wanted if each in _versions(hello))
    alpn = hello.alpn or (b"",)
    return Outcome(
        version=version,
        cipher=_CIPHERS[version],
        alpn=_HTTP_1 if _HTTP_1 in alpn else alpn[0],
        extended_master_secret=True,
    )


class Probes:
    """Which cases each client has met, and their leaves."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority
        self._untrusted = CertificateAuthority.untrusted()
        self._keys = LeafKeys()
        self._weak: rsa.RSAPrivateKey | None = None
        self._next: FIFOCache[tuple[Client, str], int] = FIFOCache(_HARD_LIMIT)

    def is_due(self, client: Client, name: str) -> bool:
        """Whether the client has still to meet a case at this name."""
        return self._next.get((client, name[:_MAX_NAME]), 0) < len(_CASES)

    def cases(self, client: Client, name: str) -> Iterator[Case]:
        """The cases that the client has not met at this name; each that is taken counts as met."""
        key = client, name[:_MAX_NAME]
        while (number := self._next.get(key, 0)) < len(_CASES):
            self._next[key] = number + 1
            yield _CASES[number]

    async def leaf(self, case: Case, name: str, hello: ClientHello, version: int) -> Leaf:
        """The leaf with this defect, for a name or an address."""
        key = await self._key(case, hello, version)
        now = datetime.now(UTC).replace(microsecond=0)
        issuer = self._untrusted if case is Case.UNKNOWN_ISSUER else self._authority
        signed = _Signed(issuer.certificate, issuer.key)
        chain: tuple[x509.Certificate, ...] = (issuer.certificate,)
        start, end = now - timedelta(hours=1), now + 30 * _DAY
        match case:
            case Case.SELF_SIGNED:
                signed, chain = _Signed(None, key), ()
            case Case.EXPIRED:
                start, end = now - 30 * _DAY, now - _DAY
            case Case.NOT_YET_VALID:
                start, end = now + _DAY, now + 31 * _DAY
            case Case.LEAF_AS_ISSUER:
                between = (await self._keys.get(KeyType.EC_P256)).private
                middle = _sign(signed, _OTHER_NAME, between, start, end)
                signed, chain = _Signed(middle, between), (middle, *chain)
        named = _OTHER_NAME if case is Case.WRONG_NAME else name
        certificate = _sign(signed, named, key, start, end, is_weak=case is Case.SHA1)
        staple = b""
        if case is Case.REVOKED:
            revoked = Staple(now - _DAY, now + _DAY, Revocation(now - _DAY))
            staple = make_staple(revoked, certificate, self._authority)
        sent = (certificate, *chain)
        return Leaf(
            certificate=certificate,
            chain=chain,
            chain_der=tuple(each.public_bytes(Encoding.DER) for each in sent),
            key=key,
            staple=staple,
            mirrored=(),
            not_mirrored=(),
        )

    async def _key(self, case: Case, hello: ClientHello, version: int) -> PrivateKey:
        if case is Case.WEAK_KEY:
            if self._weak is None:
                self._weak = await trio.to_thread.run_sync(_weak_key)
            return self._weak
        if version in _OLD:
            return (await self._keys.get(KeyType.RSA_2048)).private
        schemes = hello.signature_algorithms or None
        kind = allowed_key_type(KeyType.EC_P256, schemes, version=version)
        return (await self._keys.get(kind)).private


_CASES: Final = tuple(Case)


@dataclass(frozen=True, slots=True)
class _Signed:
    """Who signs: a certificate (None: the leaf itself) and its key."""

    certificate: x509.Certificate | None
    key: PrivateKey


def _weak_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=_WEAK_RSA_BITS)


def _sign(
    signer: _Signed,
    name: str,
    key: PrivateKey,
    start: datetime,
    end: datetime,
    *,
    is_weak: bool = False,
) -> x509.Certificate:
    name = name.encode("ascii", "replace").decode()  # a client has named it
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MAX_COMMON_NAME])])
    by = signer.certificate
    signing_key = by.public_key() if by else key.public_key()
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.subject if by else subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_SIGNS, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key),  # type: ignore[arg-type]
            critical=False,
        )
    )
    if isinstance(signer.key, ed25519.Ed25519PrivateKey):
        return builder.sign(signer.key, None)
    certificate = builder.sign(signer.key, signing_hash(signer.key))
    return _with_sha1(certificate, signer.key) if is_weak else certificate


def _with_sha1(certificate: x509.Certificate, key: AuthorityKey) -> x509.Certificate:
    """The same, signed with SHA-1, which the library's builder refuses to do."""
    is_rsa = isinstance(key, rsa.RSAPrivateKey)
    algorithm = _SHA1_WITH_RSA if is_rsa else _ECDSA_WITH_SHA1
    (tbs,) = elements(certificate.tbs_certificate_bytes)
    version, serial, _, *rest = (each.raw for each in elements(tbs.content))
    to_sign = tlv(SEQUENCE, version, serial, algorithm, *rest)
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(to_sign, PKCS1v15(), SHA1())
    else:
        signature = key.sign(to_sign, ec.ECDSA(SHA1()))
    signed = tlv(SEQUENCE, to_sign, algorithm, tlv(BIT_STRING, b"\0", signature))
    return x509.load_der_x509_certificate(signed)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


_SIGNS: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
