"""Whether a server's certificate verifies, for clients with the same roots.

The handshake itself never verifies: the flow continues with any certificate. OpenSSL stops at the
first defect, and clients stop at different ones, so a chain is verified again without the defects
that were found, until all are known. Results are cached, because verification takes longer than the
rest of a handshake.

There are five kinds of defects, by how the client learns of them:

    dates and names of the leaf    our leaf has the same
    an unknown issuer              our leaf has one of the same kind: itself, or an authority that
                                   nobody trusts, whose certificate is sent or not
    a violation of RFC 5280 that   our leaf has a similar one
      only strict clients check
    revoked, as its OCSP response  our leaf's response says so too
      says; its issuer is known
    any other                      our leaf cannot show it: it is `hidden`
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias

from cachetools import TLRUCache
from cryptography import x509
from OpenSSL import crypto
from OpenSSL._util import lib

from mitml4.dataclass import dataclass, replace
from mitml4.errors import CertificateError, UsageError
from mitml4.remember import remembered
from mitml4.tls.faults import MALFORMED, date_fault, faults_of, parse, strict_fault_of
from mitml4.tls.original import Original, key_of, names_of
from mitml4.tls.presented import Presented
from mitml4.tls.sent_chain import AUTHORITY_ALONE, SentChain, fault_of, mirror_chain
from mitml4.tls.staple import Staple, StapleFault, demands_staple, read_staple
from mitml4.tls.trust_store import certificates_of

__all__ = ["Issuer", "Unknown", "Verification", "Verifier", "added_roots", "der", "matches"]

_EXPIRED: Final = 10  # openssl/x509_vfy.h: X509_V_ERR_CERT_HAS_EXPIRED
_NOT_YET_VALID: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME
_REMEMBERED_CHAINS: Final = 1024
_REMEMBERED_NAMES: Final = 1024
_MAX_NAME: Final = 255
_MAX_BYTES: Final = 16 * 1024
"""Of a certificate whose names are remembered."""
_REMEMBERED_S: Final = 3600
"""A chain is verified again after this time at the latest."""


class Unknown(Enum):
    """Why a chain leads to none of our roots. The values are OpenSSL's codes."""

    ITSELF = lib.X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    ROOT = lib.X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
    ISSUER = lib.X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY


_UNKNOWN: Final = {each.value: each for each in Unknown} | {
    lib.X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT: Unknown.ISSUER,
    lib.X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: Unknown.ISSUER,
}

Issuer: TypeAlias = frozenset[int] | Unknown
"""The sets of roots (by index) to which a chain leads, or why it leads to none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The defects of a chain."""

    reasons: tuple[str, ...] = ()
    """All of them, in words."""
    hidden: tuple[str, ...] = ()
    """The ones that our leaf does not show."""
    issuer: Issuer
    strict: str | None = None
    """The defect for which only strict clients refuse it."""
    staple: Staple | None = None
    """The server's OCSP response, if it sent one and a response of ours can say the same."""
    sent: SentChain = AUTHORITY_ALONE
    """What follows the leaf."""
    holds_s: float = _REMEMBERED_S
    """After this time it may be another: a certificate of the chain has expired, or is valid."""

    @property
    def reason(self) -> str:
        """`ok`, or all defects."""
        return "; ".join(self.reasons) or "ok"

    @property
    def is_revoked(self) -> bool:
        """Whether the OCSP response says so."""
        return self.staple is not None and self.staple.revocation is not None

    @property
    def is_refused(self) -> bool:
        """Whether ordinary clients refuse it."""
        return any(reason != self.strict for reason in self.reasons)


class Verifier:
    """Verifies chains against several sets of roots, one for each group of clients."""

    def __init__(
        self, *sets: Collection[bytes], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`sets` are the DER of roots."""
        self._sets = [_Roots(certificates) for certificates in sets]
        self._seen: TLRUCache[bytes, Verification] = TLRUCache(_REMEMBERED_CHAINS, _expiry, clock)

    @property
    def everybody(self) -> Issuer:
        """The issuer that all clients trust, whichever set they use."""
        return frozenset(range(len(self._sets)))

    def verify(self, presented: Presented, name: str | None) -> Verification:
        """Verify a server's chain for a DNS name or an IP address (None: any name).

        A chain that is known is not parsed.
        """
        if presented.leaf is None:
            return Verification(reasons=("no certificate",), issuer=Unknown.ISSUER)
        verification = self._verify_chain(presented.chain, presented.staple)
        if name and not matches(presented.leaf, name):
            return replace(verification, reasons=(*verification.reasons, "hostname mismatch"))
        return verification

    def _verify_chain(self, certificates: Sequence[bytes], response: bytes) -> Verification:
        parts = [hashlib.sha256(part).digest() for part in (response, *certificates)]
        key = hashlib.sha256(b"".join(parts)).digest()
        if (verification := self._seen.get(key)) is None:
            verification = self._seen[key] = self._examine(certificates, response)
        return verification

    def _examine(self, certificates: Sequence[bytes], response: bytes) -> Verification:
        chain = [each for each in map(_load, certificates) if each]
        if [der(each) for each in chain] != list(certificates):
            return Verification(reasons=(MALFORMED,), hidden=(MALFORMED,), issuer=Unknown.ISSUER)
        now = datetime.now(UTC)
        findings = [roots.examine(chain) for roots in self._sets]
        known = frozenset(number for number, each in enumerate(findings) if not each.unknown)
        told = [findings[number] for number in sorted(known)] or findings[:1]
        hidden: dict[str, None] = {}
        # Some clients follow the certificates that were sent as far as they lead, even where an
        # earlier one leads to a root: OpenSSL before 1.1, for example, and wolfSSL.
        paths = [*(each.path for each in told), _claimed_path(chain)]
        for finding in told:
            hidden |= dict.fromkeys(finding.faults)
        for path in ([der(each) for each in path] for path in paths):
            hidden |= dict.fromkeys(faults_of(path, known=bool(known), now=now))
        staple = None
        try:
            staple = _read_staple(told[0].path, response, now)
        except StapleFault as fault:
            hidden[str(fault)] = None
        sent = _mirror_chain(certificates, told[0].path) if known else AUTHORITY_ALONE
        if unsendable := fault_of(sent):
            hidden[unsendable], sent = None, AUTHORITY_ALONE
        if staple and staple.revocation and not known:
            # Our leaf has an unknown issuer as well, and none that could answer for it.
            hidden["revoked"], staple = None, None
        revoked = "revoked" if staple and staple.revocation else None
        strict = next((each.strict for each in told if each.strict), None)
        shown = [told[0].unknown_reason, _date_fault(certificates[0], now), strict, revoked]
        return Verification(
            reasons=(*filter(None, shown), *hidden),
            hidden=tuple(hidden),
            issuer=known or told[0].unknown or Unknown.ISSUER,
            strict=strict,
            staple=staple,
            sent=sent,
            holds_s=_holds_s(paths, now),
        )


def _expiry(_: bytes, verification: Verification, now: float) -> float:
    return now + verification.holds_s


def _holds_s(paths: Iterable[Sequence[crypto.X509]], now: datetime) -> float:
    """Until the next date of a certificate in these paths."""
    dates = {date for path in paths for each in path for date in _dates(der(each))}
    return min([_REMEMBERED_S, *((date - now).total_seconds() for date in dates if date > now)])


def _mirror_chain(certificates: Sequence[bytes], path: Sequence[crypto.X509]) -> SentChain:
    signer = path[1] if len(path) > 1 else path[0]
    return mirror_chain(certificates, key_of(der(signer)))


@dataclass(slots=True, kw_only=True)
class _Finding:
    """The result of verification with one set of roots."""

    path: Sequence[crypto.X509]
    """From the leaf to the root; without a root, as far as the certificates that were sent lead."""
    unknown: Unknown | None = None
    unknown_reason: str | None = None
    faults: tuple[str, ...] = ()
    strict: str | None = None


class _Roots:
    """A set of roots, with a cache of verified chains."""

    def __init__(self, certificates: Collection[bytes]) -> None:
        self._given = certificates
        self._stores: dict[int, crypto.X509Store] = {}

    @cached_property
    def _certificates(self) -> list[crypto.X509]:
        """Parsed when the first chain is verified: a session without TLS starts sooner."""
        return [each for each in map(_load, self._given) if each]

    def examine(self, chain: Sequence[crypto.X509]) -> _Finding:
        """Verify a chain as clients do by default; then again without the defects that were
        found."""
        flags = 0
        unknown: tuple[Unknown, str] | None = None
        while True:
            try:
                path = self.path(chain, flags)
                break
            except crypto.X509StoreContextError as error:
                code, _depth, message = error.errors
            if code in (_EXPIRED, _NOT_YET_VALID) and not flags & _NO_CHECK_TIME:
                flags |= _NO_CHECK_TIME
            elif code in _UNKNOWN and unknown is None:
                # Some clients, such as curl and GnuTLS, accept an intermediate as a root.
                flags |= lib.X509_V_FLAG_PARTIAL_CHAIN
                unknown = _UNKNOWN[code], message
            elif code in _UNKNOWN and unknown and not self._knows_namesake(chain):
                return _examine_unknown(chain, *unknown)
            else:
                return _Finding(
                    path=_claimed_path(chain), unknown=Unknown.ISSUER, faults=(message,)
                )
        if unknown:
            return _Finding(path=path, faults=(unknown[1],))
        return _Finding(path=path, strict=self._strict_fault(chain, flags))

    def path(self, chain: Sequence[crypto.X509], flags: int) -> Sequence[crypto.X509]:
        """The verified path. Raises X509StoreContextError."""
        leaf, *others = chain
        context = crypto.X509StoreContext(self._store(flags), leaf, others)
        return context.get_verified_chain()

    def _strict_fault(self, chain: Sequence[crypto.X509], flags: int) -> str | None:
        """A defect that Python refuses from 3.13 on, and most clients do not."""
        try:
            path = self.path(chain, flags | _NO_CHECK_TIME | lib.X509_V_FLAG_X509_STRICT)
        except crypto.X509StoreContextError as error:
            return str(error)
        return strict_fault_of(list(map(der, path)))

    def _knows_namesake(self, chain: Sequence[crypto.X509]) -> bool:
        """Whether a root has the name of the issuer that was not sent. OpenSSL has found that it is
        another one, for example by its key identifier, which not every client compares."""
        subject, issuer = _names(_claimed_path(chain)[-1])
        roots = (_names(certificate)[0] for certificate in self._certificates)
        return issuer != subject and issuer in roots

    def _store(self, flags: int) -> crypto.X509Store:
        if flags not in self._stores:
            store = crypto.X509Store()
            # Without it, OpenSSL accepts a certificate for clients or for code signing as a
            # server's.
            lib.X509_STORE_set_purpose(store._store, lib.X509_PURPOSE_SSL_SERVER)
            store.set_flags(flags)
            for certificate in self._certificates:
                store.add_cert(certificate)
            self._stores[flags] = store
        return self._stores[flags]


def _examine_unknown(chain: Sequence[crypto.X509], unknown: Unknown, reason: str) -> _Finding:
    """The other defects: the chain is verified as if its last certificate were trusted."""
    path = _claimed_path(chain)
    faults = []
    try:
        _Roots([der(path[-1])]).path(chain, _NO_CHECK_TIME | lib.X509_V_FLAG_PARTIAL_CHAIN)
    except crypto.X509StoreContextError as error:
        faults.append(str(error))
    return _Finding(path=path, unknown=unknown, unknown_reason=reason, faults=tuple(faults))


def _claimed_path(chain: Sequence[crypto.X509]) -> list[crypto.X509]:
    """The leaf and its issuers, linked by name only."""
    path, others = [chain[0]], list(chain[1:])
    while True:
        subject, issuer = _names(path[-1])
        above = next((each for each in others if _names(each)[0] == issuer), None)
        if above is None or issuer == subject:
            return path
        others.remove(above)
        path.append(above)


def _names(certificate: crypto.X509) -> tuple[bytes, bytes]:
    """The DER of subject and issuer."""
    return names_of(der(certificate))


def added_roots(file: Path | None) -> list[bytes]:
    """The DER of the certificates in a file (`--upstream-ca`).

    Raises UsageError if there are none.
    """
    if file is None:
        return []
    added = list(certificates_of(file))
    if not any(map(_load, added)):
        raise UsageError(
            f"no certificates in {file}",
            hint="--upstream-ca takes a PEM file with one or more CERTIFICATE blocks",
        )
    return added


def _load(certificate: bytes) -> crypto.X509 | None:
    try:
        return crypto.load_certificate(crypto.FILETYPE_ASN1, certificate)
    except crypto.Error:
        return None


def _read_staple(path: Sequence[crypto.X509], response: bytes, now: datetime) -> Staple | None:
    """Raises StapleFault for a defect that our leaf cannot show."""
    leaf, *issuers = map(der, path)
    if any(map(demands_staple, issuers)):
        # RFC 7633 §4.2.2: what it issues has to require one as well. Only some clients check that.
        raise StapleFault("an issuer that requires an OCSP response")
    if not response:
        if demands_staple(leaf):
            raise StapleFault("no OCSP response")
        return None
    return read_staple(response, leaf, issuers[0] if issuers else leaf, now)


def _date_fault(certificate: bytes, now: datetime) -> str | None:
    dates = _dates(certificate)
    return date_fault(*dates, now) if dates else None


def _dates(certificate: bytes) -> tuple[datetime, datetime] | tuple[()]:
    """The start and the end of its validity; empty: malformed, which is reported elsewhere."""
    try:
        original = Original.read(certificate)
    except CertificateError:
        return ()
    if original.not_before is None or original.not_after is None:
        return ()
    return original.not_before, original.not_after


def der(certificate: crypto.X509) -> bytes:
    """The certificate's bytes from the wire."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def matches(certificate: bytes, name: str) -> bool:
    """Whether a certificate (DER) is for a name: only subjectAltName counts (RFC 9525 §6.3)."""
    patterns, addresses = _names_of(certificate)
    if (address := _address(name)) is not None:
        return address in addresses
    wanted = name.lower().rstrip(".")
    return any(_dns_matches(pattern, wanted) for pattern in patterns)


@remembered(_REMEMBERED_NAMES, _MAX_NAME)
def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None: it is a host name."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@remembered(_REMEMBERED_CHAINS, _MAX_BYTES)
def _names_of(certificate: bytes) -> tuple[tuple[str, ...], tuple[object, ...]]:
    """The host names and addresses of a certificate (DER)."""
    try:
        extensions = parse(certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # ExtensionNotFound, DuplicateExtension, ValueError, …
        return (), ()
    hosts = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    return tuple(host.lower().rstrip(".") for host in hosts), tuple(addresses)


def _dns_matches(pattern: str, name: str) -> bool:
    """A wildcard matches exactly one whole label, the left-most (RFC 9525 §6.3)."""
    if not pattern.startswith("*."):
        return pattern == name
    _, _, rest = name.partition(".")
    return rest == pattern[2:]
