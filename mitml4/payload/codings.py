"""Content codings (RFC 9110 §8.4.1), undone piece by piece.

A coding is a `Stage`: it takes bytes as sent and gives decoded ones, at most so many a call. So a
body that decodes to a thousand times its size costs no more than what is read of the result. A body
with several codings goes through several stages (`Chain`).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, ClassVar, Final, Protocol

from mitml4.regex import regex

__all__ = [
    "DECODER_BYTES",
    "LATE_IMPORTS",
    "MAX_ZSTD_WINDOW_LOG",
    "STEP",
    "BrokenCodingError",
    "Chain",
    "Decoder",
    "parse",
    "zstd_module",
]

STEP: Final = 16384
"""Decoded bytes of one call."""
MAX_CODINGS: Final = 4
"""Codings that are undone of one body."""
MAX_INNER: Final = 64
"""So many times the wanted bytes may come out of a stage that is not the last."""
DECODER_BYTES: Final = 65536
"""About the memory of one stage. A window is larger, but only what was decoded fills it."""
# RFC 9659 §3: "decoders MUST support window sizes up to and including 8 MB"; browsers reject more.
MAX_ZSTD_WINDOW_LOG: Final = 23

_ZSTD_MODULE: Final = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
LATE_IMPORTS: Final = ("brotli", _ZSTD_MODULE)
"""What is imported when it is first used."""

_GZIP_MAGIC: Final = b"\x1f\x8b"  # RFC 1952 §2.3.1
_ZSTD_MAGIC: Final = regex(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # RFC 8878 §3.1
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS


class BrokenCodingError(Exception):
    """The bytes are not what the coding says."""


class Stage(Protocol):
    """Undoes one coding."""

    waits: bool
    """Whether `read` has nothing more to give before it gets more bytes."""
    has_rest: bool
    """Whether bytes have come after the coding's end. They are ignored."""

    def read(self, data: bytes, room: int) -> bytes:
        """Take these bytes, which must be empty unless it waits. Returns at most `room` decoded
        bytes. Raises BrokenCodingError."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether it may end here."""
        ...


class _Inflate:
    """A single stream of zlib's."""

    __slots__ = ("_inflate", "has_rest", "waits")

    def __init__(self, wbits: int) -> None:
        self._inflate = zlib.decompressobj(wbits)
        self.waits = True
        self.has_rest = False

    def read(self, data: bytes, room: int) -> bytes:
        if self._inflate.eof:
            self.has_rest = self.has_rest or bool(data)
            return b""
        try:
            decoded = self._inflate.decompress(self._inflate.unconsumed_tail + data, room)
        except zlib.error as error:
            raise BrokenCodingError(_reason(error)) from error
        self.has_rest = bool(self._inflate.unused_data)
        # With a full result there may be more, also where all bytes were read.
        self.waits = self._inflate.eof or len(decoded) < room
        return decoded

    @property
    def is_whole(self) -> bool:
        return self._inflate.eof

    @property
    def rest(self) -> bytes:
        """What came after the end, in the piece that contained the end."""
        return self._inflate.unused_data


class _Deflate:
    """`deflate`: a zlib stream (RFC 9110 §8.4.1.2). "Some non-conformant implementations send the
    "deflate" compressed data without the zlib wrapper.\""""

    __slots__ = ("_head", "_stage", "has_rest", "waits")

    def __init__(self) -> None:
        self._head = b""
        self._stage: _Inflate | None = None
        self.waits = True
        self.has_rest = False

    def read(self, data: bytes, room: int) -> bytes:
        if self._stage is None:
            self._head += data
            if len(self._head) < 2:
                return b""
            self._stage = _Inflate(
                zlib.MAX_WBITS if _has_zlib_header(self._head) else -zlib.MAX_WBITS
            )
            data = self._head
        decoded = self._stage.read(data, room)
        self.waits, self.has_rest = self._stage.waits, self._stage.has_rest
        return decoded

    @property
    def is_whole(self) -> bool:
        return self._stage is not None and self._stage.is_whole


def _has_zlib_header(head: bytes) -> bool:
    """RFC 1950 §2.2: method 8, a window of at most 32 KiB, and a check of the two bytes."""
    return head[0] & 0x0F == 8 and head[0] >> 4 <= 7 and int.from_bytes(head[:2], "big") % 31 == 0


class _Members:
    """Several streams in a row, each of which begins with a known mark (RFC 1952 §2.2, RFC 8878
    §3). Other bytes after a stream are ignored."""

    __slots__ = ("_begins", "_head", "_make", "_mark_size", "_member", "has_rest", "waits")

    def __init__(
        self, make: Callable[[], Any], mark_size: int, begins: Callable[[bytes], object]
    ) -> None:
        """`make`: the reader of one stream, which has `rest`; `begins`: whether a stream begins so,
        with `mark_size` bytes."""
        self._make, self._mark_size, self._begins = make, mark_size, begins
        self._member = make()
        self._head = b""
        """What has come after a stream, as long as it may be the mark of another one."""
        self.waits = True
        self.has_rest = False

    def read(self, data: bytes, room: int) -> bytes:
        if self.has_rest:
            return b""
        if self._member.is_whole:
            self._head += data
            return self._next(room)
        decoded: bytes = self._member.read(data, room)
        self.waits = self._member.waits
        if self._member.is_whole:
            self._head = self._member.rest
            self.waits = not self._head
        return decoded

    def _next(self, room: int) -> bytes:
        """A stream has ended; what begins after it?"""
        self.waits = True
        if len(self._head) < self._mark_size:
            return b""
        if not self._begins(self._head):
            self.has_rest = True
            return b""
        self._member, head, self._head = self._make(), self._head, b""
        return self.read(head, room)

    @property
    def is_whole(self) -> bool:
        return bool(self._member.is_whole)


class _Brotli:
    """Brotli (RFC 7932). Its library gives more than it is asked for, within 32 KiB."""

    __slots__ = ("_decoder", "_failure", "_ready", "has_rest", "waits")

    def __init__(self) -> None:
        import brotli

        self._decoder: Any = brotli.Decompressor()
        self._failure: type[Exception] = brotli.error
        self._ready = b""
        self.waits = True
        self.has_rest = False

    def read(self, data: bytes, room: int) -> bytes:
        if data and self.is_whole:
            raise BrokenCodingError("bytes after its end")
        if not self._ready:
            try:
                self._ready = self._decoder.process(data, output_buffer_limit=room)
            except self._failure as error:
                raise BrokenCodingError("not valid") from error
        decoded, self._ready = self._ready[:room], self._ready[room:]
        # It accepts more data also while it has more to give.
        self.waits = not decoded and self._decoder.can_accept_more_data()
        return decoded

    @property
    def is_whole(self) -> bool:
        return bool(self._decoder.is_finished())


class _Zstd:
    """One frame of Zstandard (RFC 8878)."""

    __slots__ = ("_decoder", "_failure", "waits")

    def __init__(self) -> None:
        zstd = zstd_module()
        options = {zstd.DecompressionParameter.window_log_max: MAX_ZSTD_WINDOW_LOG}
        self._decoder = zstd.ZstdDecompressor(options=options)
        self._failure: type[Exception] = zstd.ZstdError
        self.waits = True

    def read(self, data: bytes, room: int) -> bytes:
        try:
            decoded: bytes = self._decoder.decompress(data, room)
        except self._failure as error:
            raise BrokenCodingError(_reason(error)) from error
        self.waits = self._decoder.eof or self._decoder.needs_input
        return decoded

    @property
    def is_whole(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def rest(self) -> bytes:
        return bytes(self._decoder.unused_data)


def zstd_module() -> Any:
    """Python has it from 3.14 on; before, a package has the same."""
    return import_module(_ZSTD_MODULE)


def _gzip() -> Stage:
    return _Members(
        lambda: _Inflate(_GZIP_WBITS), len(_GZIP_MAGIC), lambda head: head.startswith(_GZIP_MAGIC)
    )


def _zstd() -> Stage:
    return _Members(_Zstd, 4, _ZSTD_MAGIC.match)


_STAGES: Final[dict[str, Callable[[], Stage]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,  # RFC 9110 §8.4.1.3: "A recipient SHOULD consider […] to be equivalent"
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _zstd,
}
_REASON: Final = regex(r"^Error -?[0-9]+ while decompressing data: |^Unable to [^:]*: ")


def _reason(error: Exception) -> str:
    return _REASON.sub("", str(error))


def parse(values: Sequence[bytes]) -> tuple[str, ...]:
    """The codings that header fields list, in order and in lower case, without `identity`."""
    listed = b",".join(values).decode("ascii", "replace").split(",")
    names = (name.strip().lower() for name in listed)
    return tuple(name for name in names if name and name != "identity")


class Decoder(Protocol):
    """Undoes all that a body was coded with."""

    @property
    def reads_all(self) -> bool:
        """Whether it has to be given the rest of the body, though nothing more is kept of it."""
        ...

    @property
    def is_exhausted(self) -> bool:
        """Whether it decodes no more, whatever comes."""
        ...

    @property
    def fault(self) -> str | None:
        """What was wrong, though all was decoded."""
        ...

    def read(self, data: bytes, room: Callable[[], int]) -> Iterator[bytes]:
        """The decoded bytes of the next piece, a step at a time. `room` is asked for the size of
        each step; 0 ends it. Raises BrokenCodingError."""
        ...

    def finish(self, room: Callable[[], int]) -> Iterator[bytes]:
        """The body is complete: what is left. Raises BrokenCodingError."""
        ...


class Chain:
    """Undoes the content codings of a body, the last one first."""

    __slots__ = ("_left", "_names", "_stages")

    reads_all: ClassVar[bool] = False

    def __init__(self, codings: Sequence[str], limit: int) -> None:
        """`limit`: how many decoded bytes are wanted. Raises BrokenCodingError for a coding that is
        not known."""
        if len(codings) > MAX_CODINGS:
            raise BrokenCodingError("too many codings")
        for name in codings:
            if name not in _STAGES:
                raise BrokenCodingError(f"unknown coding {name[:40]!a}")
        self._names = tuple(reversed(codings))
        self._stages = [_STAGES[name]() for name in self._names]
        self._left = [MAX_INNER * (limit + STEP)] * (len(codings) - 1)
        """What the stages that are not the last may still put out."""

    def read(self, data: bytes, room: Callable[[], int]) -> Iterator[bytes]:
        return self._read(0, data, room)

    def _read(self, index: int, data: bytes, room: Callable[[], int]) -> Iterator[bytes]:
        stage = self._stages[index]
        is_last = index + 1 == len(self._stages)
        while wanted := room():
            size = min(STEP, wanted if is_last else self._left[index])
            if not size:
                return
            try:
                decoded = stage.read(data, size)
            except BrokenCodingError as error:
                raise BrokenCodingError(f"{self._names[index]}: {error}") from error
            data = b""
            if decoded and is_last:
                yield decoded
            elif decoded:
                self._left[index] -= len(decoded)
                yield from self._read(index + 1, decoded, room)
            if stage.waits:
                return

    @property
    def is_exhausted(self) -> bool:
        """Whether a stage may put out no more, so that the rest stays unread."""
        return 0 in self._left

    def finish(self, _room: Callable[[], int]) -> Iterator[bytes]:
        """The body is complete. Raises BrokenCodingError if a coding is not."""
        for name, stage in zip(self._names, self._stages, strict=True):
            if not stage.is_whole:
                raise BrokenCodingError(f"{name}: it ends too early")
        yield from ()

    @property
    def fault(self) -> str | None:
        """What was wrong after the end of a coding."""
        for name, stage in zip(self._names, self._stages, strict=True):
            if stage.has_rest:
                return f"{name}: bytes after its end"
        return None
