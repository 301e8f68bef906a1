"""From options to the TLS interceptor: CA, forge, verification of servers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from mitml4.events import CertificateAuthority as Authority
from mitml4.layers.tls import TlsInterceptor
from mitml4.session.config import SessionConfig
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.client_identity import ClientIdentity
from mitml4.tls.context import Contexts
from mitml4.tls.forge import Forge
from mitml4.tls.pinning import PassthroughCache, Site
from mitml4.tls.probe import Probes
from mitml4.tls.trust_store import system_roots
from mitml4.tls.verify import Verifier, added_roots

__all__ = ["stored_authority", "tls_interceptor"]


def stored_authority(directory: Path, say: Callable[[str], None]) -> CertificateAuthority:
    """The invoking user's CA, created on first use with a note. Raises CertificateError."""
    authority, is_new = CertificateAuthority.load_or_generate(directory)
    if is_new:
        say(f"made a certificate authority in {directory}; clients have to trust it")
    return authority


def tls_interceptor(
    config: SessionConfig,
    authority: CertificateAuthority,
    keylog: Callable[[bytes], None] | None,
    *,
    sets: Sequence[Collection[bytes]] | None = None,
    narrower: Mapping[frozenset[int], CertificateAuthority] | None = None,
    on_pinned: Callable[[Site], None] | None = None,
) -> tuple[TlsInterceptor, Authority]:
    """The TLS interceptor of a session, and the CA as `session.start` names it.

    Each client trusts one of the `sets` of roots (DER), by default the system's. For servers that
    verify with some of the sets only, a CA of `narrower` signs. Each client also trusts the CAs
    that sign for its set: a proxy among the clients shows others what it was shown itself.
    Raises CertificateError, UsageError.
    """
    added = added_roots(config.upstream_ca)
    path = config.client_cert
    identity = ClientIdentity.read(path) if path else None
    authorities = {frozenset((0,)): authority, **(narrower or {})}
    ours = [
        (signs_for, each.certificate.public_bytes(Encoding.DER))
        for signs_for, each in authorities.items()
    ]
    trusted = (
        [*roots, *added, *(der for signs_for, der in ours if number in signs_for)]
        for number, roots in enumerate(sets or [system_roots()])
    )
    interceptor = TlsInterceptor(
        forge=Forge(authority, narrower),
        contexts=Contexts(keylog=keylog, client_identity=identity),
        verifier=Verifier(*trusted),
        passthrough_cache=PassthroughCache(
            trio.current_time, learns_pins=config.on_pinned == "passthrough", on_pinned=on_pinned
        ),
        probes=Probes(authority) if config.probe_clients else None,
        upstream=config.upstream,
        engine=config.tls_engine,
    )
    return interceptor, Authority(authority.subject, authority.sha256)
