"""From options to what opens TLS: the authority, the forge, the trust in upstreams, the policy."""

from __future__ import annotations

from collections.abc import Callable

import trio

from mitml4.events import CertificateAuthority as Authority
from mitml4.layers.tls import TlsOpener
from mitml4.session.config import SessionConfig
from mitml4.tls.ca import CertificateAuthority
from mitml4.tls.context import Contexts
from mitml4.tls.forge import Forge
from mitml4.tls.pinning import Bypasses
from mitml4.tls.verify import Verifier

__all__ = ["tls_opener"]


def tls_opener(
    config: SessionConfig, keylog: Callable[[bytes], None] | None, say: Callable[[str], None]
) -> tuple[TlsOpener, Authority]:
    """What opens TLS in this session, and the authority as `session.start` names it.

    Makes an authority on first use, and says so. Raises CertificateError, UsageError.
    """
    ca, is_new = CertificateAuthority.load_or_generate(config.ca_dir)
    if is_new:
        say(f"made a certificate authority in {config.ca_dir}; clients have to trust it")
    opener = TlsOpener(
        forge=Forge(ca),
        contexts=Contexts(keylog=keylog, client_certificate=config.client_cert),
        verifier=Verifier(config.upstream_ca),
        bypasses=Bypasses(trio.current_time),
        judge=config.policy.decide,
        upstream=config.upstream,
        on_pinned=config.on_pinned,
    )
    return opener, Authority(ca.subject, ca.sha256)
