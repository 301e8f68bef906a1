"""The bytes of a capture file, in one buffer that slides over it, decompressed as they come.

A source is read once and forwards only, so that a pipe serves as well as a file. Errors name the
file and the offset (in the decompressed bytes, where it was compressed).
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Final, cast

from mitml4.errors import CaptureError
from mitml4.payload.codings import zstd_module

__all__ = ["Source"]

_CHUNK: Final = 1 << 17
_GZIP: Final = b"\x1f\x8b"  # RFC 1952 §2.3.1
_ZSTD: Final = b"\x28\xb5\x2f\xfd"  # RFC 8878 §3.1.1


class Source:
    """A window on a file: `data[at:]` is what has been read and not been taken yet.

    Readers take by moving `at`, and ask for `more` when the window is too short.
    """

    __slots__ = ("_failure", "_on_read", "_read", "at", "data", "name", "offset")

    def __init__(
        self, stream: BinaryIO, name: str, on_read: Callable[[], object] = lambda: None
    ) -> None:
        """The caller closes the stream. `on_read` is called before each read, which may block.

        Raises CaptureError for a compression it cannot read.
        """
        self.name = name
        self.data = b""
        self.at = 0
        self.offset = 0
        """Where in the file `data` begins."""
        self._failure: CaptureError | None = None
        self._on_read = on_read
        self._read = _reading(stream)
        self.more(len(_ZSTD))
        if decompressing := self._decompression():
            rest = _Joined(io.BytesIO(self.data), self._read)
            self._read = decompressing(io.BufferedReader(rest, _CHUNK))
            self.data = b""
            self.more(len(_ZSTD))

    def more(self, count: int) -> bool:
        """Read until the window holds `count` bytes; False when the file ends before."""
        missing = count - (len(self.data) - self.at)
        if missing <= 0:
            return True
        chunks = [self.data[self.at :]]
        while missing > 0 and (chunk := self._chunk()):
            chunks.append(chunk)
            missing -= len(chunk)
        self.offset += self.at
        self.at = 0
        self.data = b"".join(chunks)
        return missing <= 0

    def error(self, what: str) -> CaptureError:
        """An error at the place where the window stands.

        When the file could not be read on, that is why it seems to end, and the error to raise.
        """
        return self._failure or CaptureError(
            f"{self.name}: {what} at offset {self.offset + self.at}",
            hint="everything before it has been read; was the capture cut off or copied as text?",
        )

    def finish(self, what: str) -> None:
        """The reader is through: raise an error unless the file ended there, and cleanly."""
        if self._failure or self.at < len(self.data):
            raise self.error(what)

    def _chunk(self) -> bytes:
        """What comes next; b"" at the end, and where it cannot be read any further."""
        if self._failure:
            return b""
        self._on_read()
        try:
            return self._read(_CHUNK)
        except (OSError, EOFError, zlib.error) as error:
            reached = self.offset + len(self.data)
            self._failure = CaptureError(
                f"{self.name} cannot be read beyond offset {reached}:"
                f" {error or type(error).__name__}",
                hint="everything before that has been read",
            )
            return b""

    def _decompression(self) -> Callable[[BinaryIO], Callable[[int], bytes]] | None:
        if self.data.startswith(_GZIP):
            return lambda stream: gzip.GzipFile(fileobj=stream).read1
        if self.data.startswith(_ZSTD):
            return self._zstd
        return None

    def _zstd(self, stream: BinaryIO) -> Callable[[int], bytes]:
        zstd = zstd_module()
        return _translating(zstd.ZstdFile(stream).read1, zstd.ZstdError)


def _translating(read: Callable[[int], Any], failure: type[Exception]) -> Callable[[int], bytes]:
    """Let a library's own error appear as the OSError that gzip raises."""

    def translated(count: int) -> bytes:
        try:
            return cast("bytes", read(count))
        except failure as error:
            raise OSError(str(error)) from error

    return translated


def _reading(stream: BinaryIO) -> Callable[[int], bytes]:
    """How to take what is there: `read` would wait for a whole chunk of a slow pipe."""
    return getattr(stream, "read1", stream.read)


class _Joined(io.RawIOBase):
    """What has been read of a stream already, and then the rest of it."""

    def __init__(self, head: BinaryIO, rest: Callable[[int], bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head.read(len(buffer)) or self._rest(len(buffer))
        buffer[: len(data)] = data
        return len(data)
