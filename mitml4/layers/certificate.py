"""The certificate that a client is shown: a leaf of ours with the server's names, key and defects.

What is wrong with the server's certificate is what the client would find; a leaf can show dates,
names, an unknown issuer, that it is not strict, and that it is revoked. All else it would hide
(`Assessment.hidden`): then the client should meet the server itself.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, Literal

from mitml4.dataclass import dataclass, replace
from mitml4.errors import CertificateError
from mitml4.protocols.context import LayerContext
from mitml4.protocols.tls.certificate import CertificateDetails
from mitml4.protocols.tls.hello import ClientHello
from mitml4.remember import remembered
from mitml4.tls.forge import Forge, Leaf
from mitml4.tls.keys import KeyType, allowed_key_type
from mitml4.tls.original import key_type_of
from mitml4.tls.presented import Presented
from mitml4.tls.sent_chain import AUTHORITY_ALONE
from mitml4.tls.verify import Unknown, Verification, Verifier

__all__ = [
    "Assessment",
    "CertificateTools",
    "assess",
    "make_leaf",
    "unknown_to_all",
    "verified_details",
]

_REMEMBERED_CERTIFICATES: Final = 512
_MAX_BYTES: Final = 16 * 1024
"""Of a certificate that is remembered; usual ones have 1 to 4 KiB."""


@dataclass(slots=True, kw_only=True)
class CertificateTools:
    """What the certificates of a session are made with."""

    forge: Forge
    verifier: Verifier
    upstream: Literal["mirror", "reject", "ignore"] = "mirror"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What was found of a server's certificate."""

    verification: Verification
    """What the leaf is to show."""
    details: CertificateDetails | None
    is_rejected: bool
    """Whether it is to end the connection (`--upstream reject`)."""
    hidden: str
    """What is wrong and no leaf can show; empty: nothing."""


def assess(
    tools: CertificateTools, presented: Presented, hello: ClientHello, context: LayerContext
) -> Assessment:
    """What is wrong with the server, as far as a leaf of ours shows it to the client."""
    verification = tools.verifier.verify(presented, _expected_name(hello, context))
    leaf = presented.leaf
    details = None if leaf is None else verified_details(leaf, verification.reason)
    hidden = [*presented.faults]
    shown = verification
    if tools.upstream == "ignore":
        staple = None if verification.is_revoked else verification.staple
        shown = replace(
            verification,
            issuer=tools.verifier.everybody,
            strict=None,
            staple=staple,
            sent=AUTHORITY_ALONE,
        )
    else:
        hidden = [*verification.hidden, *hidden]
    return Assessment(
        verification=shown,
        details=details,
        is_rejected=tools.upstream == "reject" and verification.is_refused,
        hidden="; ".join(hidden),
    )


def verified_details(leaf: bytes, reason: str) -> CertificateDetails | None:
    """The same object for the same arguments, as long as it is kept; None for bytes that are no
    certificate. `reason`: how it has verified."""
    details = _details(leaf)
    if details is None:
        return None
    if len(leaf) > _MAX_BYTES:
        return replace(details, verify=reason)
    return _verified(details, reason)


def unknown_to_all(verification: Verification) -> Verification:
    """The same, for a leaf that no client trusts."""
    if isinstance(verification.issuer, Unknown):
        return verification
    return replace(verification, issuer=Unknown.ISSUER)


async def make_leaf(
    tools: CertificateTools,
    original: bytes | None,
    verification: Verification,
    hello: ClientHello,
    *,
    version: int,
    host: str | None = None,
) -> Leaf:
    """The leaf that mirrors the server's (DER; None: it has none, and the leaf is for the SNI, or
    else for `host`). `version` is the negotiated one. Raises CertificateError."""
    key_type = allowed_key_type(
        KeyType.EC_P256 if original is None else _key_type(original),
        hello.signature_algorithms or None,
        version=version,
    )
    return await tools.forge.leaf(
        original,
        issuer=verification.issuer,
        key_type=key_type,
        name=hello.sni or host,
        strict=verification.strict is None,
        staple=verification.staple,
        sent=verification.sent,
    )


def _expected_name(hello: ClientHello, context: LayerContext) -> str | None:
    """The name that the client would check: its SNI, or the host that it asked a proxy for."""
    if hello.sni or not context.target:
        return hello.sni
    host = context.target.host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None


_details: Final = remembered(_REMEMBERED_CERTIFICATES, _MAX_BYTES)(CertificateDetails.of_der)


@lru_cache(_REMEMBERED_CERTIFICATES)
def _verified(details: CertificateDetails, reason: str) -> CertificateDetails:
    return replace(details, verify=reason)


@remembered(_REMEMBERED_CERTIFICATES, _MAX_BYTES)
def _key_type(certificate: bytes) -> KeyType:
    """The leaf's kind of key; EC P-256 where the original is not to be read."""
    try:
        return key_type_of(certificate)
    except CertificateError:
        return KeyType.EC_P256
