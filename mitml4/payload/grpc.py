"""The messages of a gRPC stream: each has a prefix of five bytes
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, "Length-Prefixed-Message").

gRPC-Web has the same, and sends its trailers as a last frame with the highest bit set.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from mitml4.dataclass import dataclass
from mitml4.payload.body import Body, Content
from mitml4.payload.budget import Payload

__all__ = ["GrpcFrame", "GrpcReader"]

_PREFIX: Final = struct.Struct(">BL")
_COMPRESSED: Final = 0x01
_TRAILERS: Final = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcFrame:
    """A message, or the trailers of gRPC-Web."""

    content: Content
    compressed: bool
    is_trailers: bool


class GrpcReader:
    """Reads one direction of a stream, which may be split anywhere."""

    __slots__ = ("_body", "_codings", "_flags", "_head", "_left", "_payload", "is_broken")

    def __init__(self, payload: Payload, codings: tuple[str, ...]) -> None:
        """`codings`: that of grpc-encoding, if there is one."""
        self._payload = payload
        self._codings = codings
        self._head = b""
        self._flags = 0
        self._left = 0
        self._body: Body | None = None
        self.is_broken = False
        """Whether this is no stream of messages."""

    def read(self, data: bytes) -> Iterator[GrpcFrame]:
        """The messages that end in the next bytes."""
        at = 0
        while at < len(data) and not self.is_broken:
            if self._body is None:
                missing = _PREFIX.size - len(self._head)
                self._head += data[at : at + missing]
                at += missing
                if len(self._head) < _PREFIX.size:
                    return
                self._begin()
            if self._body is not None:
                piece = data[at : at + self._left]
                self._body.write(piece)
                self._left -= len(piece)
                at += len(piece)
                if not self._left:
                    yield self._end(self._body, is_complete=True)

    def end(self) -> Iterator[GrpcFrame]:
        """Nothing more comes: the message that has not ended."""
        if self._body is not None:
            yield self._end(self._body, is_complete=False)

    def _begin(self) -> None:
        self._flags, self._left = _PREFIX.unpack(self._head)
        self._head = b""
        self.is_broken = self._flags & ~(_COMPRESSED | _TRAILERS) != 0
        if not self.is_broken:
            is_compressed = self._flags & _COMPRESSED
            self._body = Body(self._payload, self._codings if is_compressed else ())

    def _end(self, body: Body, *, is_complete: bool) -> GrpcFrame:
        self._body = None
        return GrpcFrame(
            content=body.end(is_complete=is_complete),
            compressed=bool(self._flags & _COMPRESSED),
            is_trailers=bool(self._flags & _TRAILERS),
        )
