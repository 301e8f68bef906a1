"""The key log: TLS secrets in NSS's format, with which Wireshark decrypts a capture.

It is not a sink but OpenSSL's key log callback. A line is written before the handshake goes on, so
that it is in the file before the packets that it decrypts are sent.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final

from cachetools import FIFOCache

from mitml4.errors import MitmError
from mitml4.regex import regex
from mitml4.sinks.files import OutputFile, open_file
from mitml4.whole_writes import write_all

__all__ = ["KeyLog"]

_REMEMBERED: Final = 1024
_LONGEST_LABEL: Final = 64
# A comment, or `LABEL random secret`.
_LINE_BEGINS: Final = regex(rb"\s*(?:#|[A-Z][A-Z0-9_]+ [0-9a-fA-F]+)")
_TIMEOUT_S: Final = 1.0
"""How long the reader of a pipe may block all flows."""


def _expect_key_log(descriptor: int, path: Path) -> None:
    """Raises MitmError for another kind of file, so that secrets are not appended to a private
    key."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return
    try:
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            beginning = file.read(_LONGEST_LABEL)
    except PermissionError:  # it may be writable and not readable
        return
    if beginning and not _LINE_BEGINS.match(beginning):
        raise MitmError(f"{path} is there, and is no key log", hint="--keylog keys.txt")


class KeyLog:
    """Appends each line once to the existing content. Any thread may call it."""

    def __init__(self, path: Path, on_failure: Callable[[MitmError], object]) -> None:
        """Raises MitmError if the file cannot be opened. `on_failure` is called once, with the
        first error of writing; later lines are discarded."""
        self.name = str(path)
        self._on_failure = on_failure
        self._descriptor = open_file(path, append=True)
        try:
            _expect_key_log(self._descriptor, path)
        except MitmError:
            os.close(self._descriptor)
            raise
        self._file = OutputFile(self._descriptor, self.name)
        os.set_blocking(self._descriptor, False)
        self._written: FIFOCache[bytes, None] = FIFOCache(_REMEMBERED)
        """The latest lines: OpenSSL repeats them only within a handshake."""
        self._lock = Lock()

    def __call__(self, line: bytes) -> None:
        """Write a line, which has no line end."""
        with self._lock:
            if self._descriptor < 0 or line in self._written:
                return
            self._written[line] = None
            failure = self._append(line)
        if failure:
            self._on_failure(failure)

    @property
    def descriptor(self) -> int:
        """Of the file; -1 once it is closed."""
        return self._descriptor

    def close(self) -> None:
        with self._lock:
            failure = self._release()
        if failure:
            self._on_failure(failure)

    def _append(self, line: bytes) -> MitmError | None:
        try:
            # In one write, since other processes may append to the same file.
            write_all(self._descriptor, line + b"\n", timeout_s=_TIMEOUT_S)
        except OSError as error:
            self._release()
            return self._file.failure(error)
        return None

    def _release(self) -> MitmError | None:
        if self._descriptor < 0:
            return None
        self._descriptor = -1
        try:
            self._file.close()
        except OSError as error:
            return self._file.failure(error)
        return None
