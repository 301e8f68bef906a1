"""Files below one folder, which is open from the start: the rules, and what `file` answers with.

A session opens no path after it is confined, but files below an open folder it may read. Each part
of a name is opened below the one before it, and no link is followed: so nothing leads out.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from mitml4.dataclass import dataclass

__all__ = ["TYPES", "Folder", "Stamp", "media_type", "read_whole", "stamp_of"]

Stamp = tuple[int, int, int]
"""What changes when a file does: its number, its size, and the time of its last change (ns)."""

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LINK_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_MAX_PARTS: Final = 64

# A part of IANA's registry; `mimetypes` would read files of the machine.
TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "gif": "image/gif",
    "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
    "ico": "image/vnd.microsoft.icon",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "mjs": "text/javascript; charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "wasm": "application/wasm",
    "webp": "image/webp",
    "woff2": "font/woff2",
    "xml": "application/xml",
}


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def media_type(name: str) -> str:
    """The content type of a file by its name."""
    return TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Folder:
    """An open folder."""

    descriptor: int

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Folder:
        """Raises OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def stamp(self, name: str) -> Stamp:
        """Of a file in this folder itself. Raises OSError."""
        return stamp_of(os.stat(name, dir_fd=self.descriptor))

    def open_file(self, name: str) -> int:
        """A descriptor of a file in this folder itself, which may be a link. Raises OSError."""
        return os.open(name, _LINK_FLAGS, dir_fd=self.descriptor)

    def read(self, parts: list[str], limit: int) -> tuple[str, bytes]:
        """A file below this folder, or the `index.html` of a folder there; its name and content.

        Raises OSError: ELOOP for a link, EPERM for a part that would lead out, EFBIG above the
        limit, and others of the kernel's.
        """
        if len(parts) > _MAX_PARTS:
            raise _error(errno.ENAMETOOLONG)
        at = os.dup(self.descriptor)
        name = "index.html"
        try:
            for part in parts:
                if part in ("", "."):
                    continue
                if part == ".." or "/" in part or "\0" in part:
                    raise _error(errno.EPERM)
                inner = os.open(part, _FLAGS, dir_fd=at)
                os.close(at)
                at, name = inner, part
            if stat.S_ISDIR(os.fstat(at).st_mode):
                name = "index.html"
                inner = os.open(name, _FLAGS, dir_fd=at)
                os.close(at)
                at = inner
            descriptor, at = at, -1
            return name, read_whole(descriptor, limit)
        finally:
            if at >= 0:
                os.close(at)

    def is_folder(self, parts: list[str]) -> bool:
        """Whether this is a folder, and not a file. Raises OSError as `read` does."""
        at = os.dup(self.descriptor)
        try:
            for part in parts:
                if part in ("", "."):
                    continue
                if part == "..":
                    raise _error(errno.EPERM)
                inner = os.open(part, _FLAGS, dir_fd=at)
                os.close(at)
                at = inner
            return stat.S_ISDIR(os.fstat(at).st_mode)
        finally:
            os.close(at)


def read_whole(descriptor: int, limit: int) -> bytes:
    """A file, whose descriptor is closed. Raises OSError, with EFBIG above the limit."""
    with open(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            if stat.S_ISDIR(found.st_mode):
                raise _error(errno.EISDIR)
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise _error(errno.EFBIG)
    return content


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
