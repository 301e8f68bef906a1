"""Compressed certificates (RFC 8879) and delegated credentials (RFC 9345).

A delegated credential is a short-lived key that a server's certificate has signed. It takes the
place of the certificate's key in CertificateVerify.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from mitml4.crypto.signatures import CannotVerify, PublicKey, signed_content, verify
from mitml4.dataclass import dataclass
from mitml4.payload.codings import MAX_ZSTD_WINDOW_LOG, zstd_module
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.remember import remembered
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.messages import CompressedCertificate
from mitml4.tls.bridge.wire import Fields, uint16, vector

__all__ = ["compress", "decompress", "verify_credential"]

_MAX_BYTES: Final = 1 << 18
"""Of a Certificate, as of every other handshake message."""
_BROTLI_QUALITY: Final = 5
"""The best one takes twenty times as long for a few bytes less."""
_REMEMBERED: Final = 64
_MAX_REMEMBERED_BYTES: Final = 8192


def decompress(message: CompressedCertificate) -> bytes:
    """The body of the Certificate.

    Raises TlsError(BAD_CERTIFICATE), as RFC 8879 §4 demands, if it is broken or has another length
    than it declares; CannotBridge for an unknown algorithm.
    """
    algorithm = _ALGORITHMS.get(message.algorithm)
    if algorithm is None:
        raise CannotBridge(f"certificates compressed by algorithm {message.algorithm}")
    if message.length > _MAX_BYTES:
        raise _bad(f"has {message.length} bytes")
    # One byte more than it declares would be too many, and is enough to see that.
    body = algorithm.decompress(message.data, message.length + 1)
    if body is None:
        raise _bad("is broken")
    if len(body) != message.length:
        raise _bad("has another length than it declares")
    return body


def _bad(fault: str) -> TlsError:
    return TlsError(Alert.BAD_CERTIFICATE, f"a compressed certificate that {fault}")


def compress(body: bytes, algorithm: int) -> CompressedCertificate:
    """The body of a Certificate, compressed by an algorithm that `decompress` has accepted."""
    return CompressedCertificate(algorithm, len(body), _ALGORITHMS[algorithm].compress(body))


# What compresses is remembered: the same leaf is shown for each connection to a site. What
# decompresses gives at most about so many bytes; None if the data is broken, cut or has a tail.


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def _zlib(body: bytes) -> bytes:
    return zlib.compress(body)


def _from_zlib(data: bytes, most: int) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        body = stream.decompress(data, most)
    except zlib.error:
        return None
    return body if stream.eof and not stream.unused_data else None


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def _brotli(body: bytes) -> bytes:
    import brotli

    compressed: bytes = brotli.compress(body, quality=_BROTLI_QUALITY)
    return compressed


def _from_brotli(data: bytes, most: int) -> bytes | None:
    import brotli

    stream = brotli.Decompressor()
    try:
        body: bytes = stream.process(data, output_buffer_limit=most)
        while len(body) < most and not stream.is_finished():
            piece: bytes = stream.process(b"", output_buffer_limit=most - len(body))
            if not piece:
                return None
            body += piece
    except brotli.error:  # also bytes after the end
        return None
    return body


@remembered(_REMEMBERED, _MAX_REMEMBERED_BYTES)
def _zstd(body: bytes) -> bytes:
    compressed: bytes = zstd_module().compress(body)
    return compressed


def _from_zstd(data: bytes, most: int) -> bytes | None:
    zstd = zstd_module()
    stream = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: MAX_ZSTD_WINDOW_LOG}
    )
    try:
        body: bytes = stream.decompress(data, most)
    except zstd.ZstdError:
        return None
    return body if stream.eof and not stream.unused_data else None


@dataclass(frozen=True, slots=True)
class _Algorithm:
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes | None]


_ALGORITHMS: Final = {  # RFC 8879 §3
    1: _Algorithm(_zlib, _from_zlib),
    2: _Algorithm(_brotli, _from_brotli),
    3: _Algorithm(_zstd, _from_zstd),
}

# Delegated credentials

_DELEGATION_USAGE: Final = x509.ObjectIdentifier("1.3.6.1.4.1.44363.44")  # RFC 9345 §4.2
_MAX_VALIDITY: Final = timedelta(days=7)  # RFC 9345 §4.1.3
_RSA_ENCRYPTION: Final = frozenset({0x0804, 0x0805, 0x0806})
"""Schemes of RSA keys for any use, which RFC 9345 §4 does not allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credential:
    """RFC 9345 §4."""

    valid_time: int
    """Seconds from the certificate's notBefore on."""
    scheme: int
    spki: bytes
    algorithm: int
    """With which the certificate has signed it."""
    signature: bytes

    @classmethod
    def parse(cls, body: bytes) -> _Credential:
        fields = Fields(body, "delegated credential")
        valid_time, scheme = fields.uint32(), fields.uint16()
        spki = fields.vector(3, least=1)
        algorithm = fields.uint16()
        signature = fields.vector(2, least=1)
        fields.end()
        return cls(
            valid_time=valid_time,
            scheme=scheme,
            spki=spki,
            algorithm=algorithm,
            signature=signature,
        )

    def signed_content(self, leaf: bytes) -> bytes:
        head = self.valid_time.to_bytes(4, "big") + uint16(self.scheme) + vector(3, self.spki)
        return signed_content(
            "TLS, server delegated credentials", leaf + head + uint16(self.algorithm)
        )


def verify_credential(
    body: bytes, leaf: bytes, schemes: Collection[int], leaf_schemes: Collection[int]
) -> tuple[PublicKey, int]:
    """The key of a delegated credential, and the scheme that its CertificateVerify must have.

    `body`: the extension of the certificate `leaf` (DER); `schemes`: those in the client's
    delegated_credential; `leaf_schemes`: those in its signature_algorithms.

    Raises TlsError, with ILLEGAL_PARAMETER for a credential that is not valid (RFC 9345 §4.1.3);
    CannotVerify for a key or signature scheme that is not known.
    """
    credential = _Credential.parse(body)
    if credential.scheme not in schemes or credential.algorithm not in leaf_schemes:
        raise _invalid("has a signature scheme that was not offered")
    if credential.scheme in _RSA_ENCRYPTION:
        raise _invalid("has a key for RSA encryption")
    certificate = _delegating(leaf)
    left = certificate.not_valid_before_utc - datetime.now(UTC)
    left += timedelta(seconds=credential.valid_time)
    if not timedelta() <= left <= _MAX_VALIDITY:
        raise _invalid("has expired, or is valid for more than seven days")
    key = PublicKey.of_certificate(certificate)
    try:
        verify(credential.algorithm, key, credential.signature, credential.signed_content(leaf))
    except TlsError as error:
        raise _invalid("is not signed by its certificate") from error
    return PublicKey.of_spki(credential.spki), credential.scheme


def _delegating(leaf: bytes) -> x509.Certificate:
    """The certificate, if it may delegate (RFC 9345 §4.2)."""
    try:
        certificate = x509.load_der_x509_certificate(leaf)
        certificate.extensions.get_extension_for_oid(_DELEGATION_USAGE)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    except Exception as error:  # ValueError, InvalidVersion, DuplicateExtension, …
        raise CannotVerify("the certificate of a delegated credential") from error
    if usage is None or not usage.digital_signature:
        raise _invalid("is of a certificate that may not delegate")
    return certificate


def _invalid(fault: str) -> TlsError:
    return TlsError(Alert.ILLEGAL_PARAMETER, f"a delegated credential that {fault}")
