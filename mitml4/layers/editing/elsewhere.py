"""Connections to servers that OpenSSL speaks TLS to without a client's handshake beside it: a
server that a rule names, a flow's own server that is connected to only when it is needed, and a
proxy on the way to a server."""

from __future__ import annotations

import errno
import ipaddress
from contextlib import suppress
from typing import Final

import trio

from mitml4.layers.handshake import HandshakeTools
from mitml4.net.stream import Stream, StreamTruncated
from mitml4.tasks import fail_after
from mitml4.tls.failure import TlsFailure
from mitml4.tls.stream import TlsStream, tls_over

__all__ = ["RefusedCertificateError", "connect_tls"]

_HANDSHAKE_S: Final = 30.0


class RefusedCertificateError(OSError):
    """A server's certificate does not verify."""


async def connect_tls(
    tools: HandshakeTools, below: Stream, host: str, alpn: tuple[bytes, ...]
) -> TlsStream:
    """Do the handshake, and verify the server as `--upstream` says: its defects cannot be mirrored
    here, so they end the connection unless they are ignored. Raises OSError, of which
    RefusedCertificateError is one; `below` is closed then, and where this is cancelled."""
    try:
        return await _connect_tls(tools, below, host, alpn)
    except BaseException:
        below.close()
        raise


async def _connect_tls(
    tools: HandshakeTools, below: Stream, host: str, alpn: tuple[bytes, ...]
) -> TlsStream:
    stream = tls_over(below, tools.contexts.plain())
    if not _is_address(host):
        stream.connection.set_tlsext_host_name(_encoded(host))
    if alpn:
        stream.connection.set_alpn_protos(list(alpn))
    try:
        with fail_after(_HANDSHAKE_S):
            await stream.handshake()
    except TlsFailure as failure:
        raise OSError(errno.EPROTO, f"TLS: {failure.reason}") from None
    except StreamTruncated:
        raise OSError(errno.ECONNRESET, "closed during the TLS handshake") from None
    except trio.TooSlowError:
        raise OSError(errno.ETIMEDOUT, "no answer to the TLS handshake") from None
    verification = tools.verifier.verify(stream.presented(), host)
    if verification.is_refused and tools.upstream != "ignore":
        below.abort()
        raise RefusedCertificateError(errno.EPROTO, f"its certificate: {verification.reason}")
    return stream


def _encoded(host: str) -> bytes:
    """A host as SNI, which is ASCII (RFC 6066 §3). A client may have named it, so it may be no name
    in DNS. Raises OSError."""
    with suppress(UnicodeError):
        name = host.encode("ascii" if host.isascii() else "idna")
        if b"\0" not in name:
            return name
    raise OSError(errno.EINVAL, "a host that TLS cannot name")


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
