"""Content codings undone for editing, and done again."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from mitml4.edit.headers import Headers
from mitml4.edit.messages import Request, Response
from mitml4.payload.codings import BrokenCodingError, Chain, parse, zstd_module

__all__ = ["body_bytes", "content_codings", "decoded"]

_GZIP_WBITS: Final = 31
_LEVEL: Final = 6
_BROTLI_QUALITY: Final = 4


def content_codings(headers: Headers) -> tuple[str, ...]:
    """The content codings of a body."""
    return parse([each.encode("latin-1") for each in headers.get_all("content-encoding")])


def body_bytes(message: Request | Response, content: bytes | None, codings: Sequence[str]) -> bytes:
    """The changed body of a message, as it is sent. `content` is what it was handed over with, and
    `codings` what was undone. Codings that were not undone are not done again: then
    Content-Encoding goes."""
    assert message.body is not None
    if content is not None and content_codings(message.headers) == tuple(codings):
        return _encoded(message.body, codings)
    message.headers.discard("content-encoding")
    return message.body


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


def _encoded(content: bytes, codings: Sequence[str]) -> bytes:
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
