"""The kernel's settings, read and written: on files that play them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mitml4.errors import MachineError
from mitml4.net import sysctl
from mitml4.net.sysctl import read_sysctl, write_sysctl


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sysctl, "_DIRECTORY", tmp_path)
    (tmp_path / "net").mkdir()
    file = tmp_path / "net" / "setting"
    file.write_text("1\n")
    return file


def test_a_setting_that_this_kernel_lacks_is_none() -> None:
    assert read_sysctl("kernel/no_such_setting") is None
    assert read_sysctl("kernel/ostype") == "Linux"


def test_what_is_written_is_read(setting: Path) -> None:
    write_sysctl("net/setting", "2")
    assert read_sysctl("net/setting") == "2"


def test_what_is_so_already_is_not_written(setting: Path) -> None:
    write_sysctl("net/setting", "1")
    assert setting.read_text() == "1\n"


def test_what_is_not_there_is_not_made(setting: Path) -> None:
    write_sysctl("net/other", "1")
    assert not setting.with_name("other").exists()


def test_what_is_not_for_writing_is_an_error(setting: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    write_sysctl("net/setting", "1")
    with pytest.raises(MachineError, match=r"^cannot set net/setting: Read-only file system$"):
        write_sysctl("net/setting", "2")
