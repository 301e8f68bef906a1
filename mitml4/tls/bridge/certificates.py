"""Compressed certificates (RFC 8879)."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.payload.codings import MAX_ZSTD_WINDOW_LOG, zstd_module
from mitml4.protocols.tls.alerts import Alert, TlsError
from mitml4.remember import remembered
from mitml4.tls.bridge.errors import CannotBridge
from mitml4.tls.bridge.messages import CompressedCertificate

__all__ = ["compress", "decompress"]

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
