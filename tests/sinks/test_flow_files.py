"""Files of single flows, and the process that writes them."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from mitml4.sinks import flow_files
from mitml4.sinks.flow_files import FlowFiles, write_flow
from mitml4.sinks.writer import Writer


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_file_is_replaced(directory: Path) -> None:
    files = FlowFiles()
    assert write_flow(7, [b"a\n"]) == "flow-7.jsonl"
    assert files.write(7, [b"b\n", b"c\n"]) == "flow-7-2.jsonl"
    os.symlink(directory / "elsewhere", "flow-7-3.jsonl")
    assert write_flow(7, [b"d\n"]) == "flow-7-4.jsonl"
    files.close()
    content = {path.name: path.read_text() for path in directory.iterdir() if path.is_file()}
    assert content == {
        "flow-7.jsonl": "a\n",
        "flow-7-2.jsonl": "b\nc\n",
        "flow-7-4.jsonl": "d\n",
    }
    assert {
        path.lstat().st_mode & 0o777 for path in directory.glob("flow-*") if path.is_file()
    } == {0o600}


def test_when_all_names_are_taken_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_files, "_MAX_NAMES", 3)
    for _ in range(2):
        write_flow(1, [b"a\n"])
    with pytest.raises(FileExistsError, match="File exists"):
        write_flow(1, [b"a\n"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_said(directory: Path) -> None:
    directory.chmod(0o500)
    files = FlowFiles()
    for write in (write_flow, files.write):
        with pytest.raises(PermissionError):
            write(1, [b"a\n"])
    directory.chmod(0o700)
    files.close()


def test_a_large_flow_passes_whole(directory: Path) -> None:
    files = FlowFiles()
    line = os.urandom(1000).hex().encode() + b"\n"
    name = files.write(1, [line] * 3000)
    assert (directory / name).read_bytes() == line * 3000
    files.close()


def test_an_error_is_an_answer_and_the_process_goes_on() -> None:
    def obey(request: bytes) -> bytes:
        if request == b"fail":
            raise FileNotFoundError(2, "nothing is here")
        return request[::-1]

    writer = Writer(obey)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            writer.ask(b"fail")
        assert writer.ask(b"abc") == b"cba"
    assert writer.ask(b"") == b""
    writer.close()


def test_signals_that_end_a_session_do_not_end_its_writer() -> None:
    """systemd sends them to all processes of a service."""
    writer = Writer(lambda _request: str(os.getpid()).encode())
    pid = int(writer.ask(b""))
    assert pid != os.getpid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(pid, number)
        assert int(writer.ask(b"")) == pid
    writer.close()


def test_a_writer_that_has_ended_is_an_error() -> None:
    def obey(request: bytes) -> bytes:
        os._exit(1)

    writer = Writer(obey)
    for _ in range(2):
        with pytest.raises(OSError, match="the process that writes it has ended"):
            writer.ask(b"abc")
    writer.close()


def test_a_request_that_is_cut_off_is_not_obeyed(directory: Path) -> None:
    place = os.open(directory, os.O_RDONLY)

    def obey(request: bytes) -> bytes:
        os.close(os.open("obeyed", os.O_CREAT | os.O_WRONLY, dir_fd=place))
        return b""

    writer = Writer(obey, descriptors=(place,))
    channel: socket.socket = writer._channel
    channel.sendall((10).to_bytes(8, "little") + b"nine byte")
    channel.shutdown(socket.SHUT_WR)
    assert channel.recv(1) == b""  # it has ended
    assert not list(directory.iterdir())
    os.close(place)
    writer.close()
