"""A write that takes only a part, or fails, wherever that happens."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mitml4.whole_writes import write_all, write_parts

PARTS = [b"one, ", b"", b"two, ", b"and three"]
WHOLE = b"".join(PARTS)
WAYS: list[Callable[[int], None]] = [
    lambda descriptor: write_all(descriptor, WHOLE),
    lambda descriptor: write_parts(descriptor, PARTS),
]


class Writes:
    """Each takes `most` bytes; the one of this number fails."""

    def __init__(self, most: int, at: int = 0, code: int = 0) -> None:
        self.most = most
        self.left = at
        self.code = code
        self._write = os.write

    def write(self, descriptor: int, data) -> int:
        self.left -= 1
        if not self.left:
            raise OSError(self.code, os.strerror(self.code))
        return self._write(descriptor, bytes(data)[: self.most])

    def writev(self, descriptor: int, parts) -> int:
        return self.write(descriptor, b"".join(parts))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"before: ")
    return path


def write(way, file: Path, writes: Writes, monkeypatch) -> None:
    with monkeypatch.context() as patch, file.open("ab") as opened:
        patch.setattr(os, "write", writes.write)
        patch.setattr(os, "writev", writes.writev)
        way(opened.fileno())


@pytest.mark.parametrize("way", WAYS)
def test_short_writes_are_continued(way, file: Path, monkeypatch) -> None:
    for most in range(1, len(WHOLE) + 1):
        file.write_bytes(b"before: ")
        write(way, file, Writes(most), monkeypatch)
        assert file.read_bytes() == b"before: " + WHOLE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EFBIG, errno.ENOMEM])
def test_a_file_is_as_it_was_or_has_whole_parts(way, code: int, file: Path, monkeypatch) -> None:
    ends = [b"before: " + b"".join(PARTS[:count]) for count in range(len(PARTS) + 1)]
    for at in range(1, len(WHOLE) + 1):
        file.write_bytes(b"before: ")
        with pytest.raises(OSError, match=os.strerror(code)):
            write(way, file, Writes(1, at, code), monkeypatch)
        assert file.read_bytes() in (ends[:-1] if way is WAYS[1] else ends[:1])


@pytest.mark.parametrize("way", WAYS)
def test_a_descriptor_that_is_not_ready_is_waited_for(way, file: Path, monkeypatch) -> None:
    for at in range(1, len(WHOLE) + 1):
        file.write_bytes(b"before: ")
        write(way, file, Writes(1, at, errno.EAGAIN), monkeypatch)
        assert file.read_bytes() == b"before: " + WHOLE
