"""Content codings undone for editing, and done again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from mitml4.payload.codings import BrokenCodingError, Chain, zstd_module

__all__ = ["decoded", "encoded"]

_GZIP_WBITS: Final = 31
_LEVEL: Final = 6
_BROTLI_QUALITY: Final = 4


def decoded(body: bytes, codings: Sequence[str], limit: int) -> bytes | None:
    """The content of a body; None if a coding cannot be undone, or the result is above the
    limit."""
    if not codings:
        return body
    whole = bytearray()

    def room() -> int:
        return limit + 1 - len(whole)

    try:
        chain = Chain(codings, limit + 1)
        for piece in chain.read(body, room):
            whole += piece
        for piece in chain.finish(room):
            whole += piece
    except BrokenCodingError:
        return None
    return bytes(whole) if len(whole) <= limit and not chain.fault else None


def encoded(content: bytes, codings: Sequence[str]) -> bytes:
    """The body with these codings, which `decoded` has undone."""
    for name in codings:
        match name:
            case "gzip" | "x-gzip":
                compress = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
                content = compress.compress(content) + compress.flush()
            case "deflate":
                content = zlib.compress(content, _LEVEL)
            case "br":
                import brotli

                content = brotli.compress(content, quality=_BROTLI_QUALITY)
            case "zstd":
                content = zstd_module().compress(content)
            case _:
                raise ValueError(f"unknown coding {name!a}")
    return content
